from graftline.component import main
from graftline.components.finetune import COMPONENT

main(COMPONENT)
