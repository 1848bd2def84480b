from graftline.component import main
from graftline.components.validate import COMPONENT

main(COMPONENT)
