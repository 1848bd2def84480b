from graftline.component import main
from graftline.components.aggregate import COMPONENT

main(COMPONENT)
