from graftline.component import main
from graftline.components.publish import COMPONENT

main(COMPONENT)
