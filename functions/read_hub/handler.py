"""GET, HEAD and POST routes of the Hub read API"""

from modelhaul import wiring
from modelhaul.entrypoints.hub_api import handle_hub_request

wiring.build_early(wiring.create_hub_reader)

handler = handle_hub_request
