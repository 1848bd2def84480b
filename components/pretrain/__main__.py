from graftline.component import main
from graftline.components.pretrain import COMPONENT

main(COMPONENT)
