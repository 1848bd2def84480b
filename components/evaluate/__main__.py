from graftline.component import main
from graftline.components.evaluate import COMPONENT

main(COMPONENT)
