"""Folders of pictures: on this machine, or on a Ray cluster.

folder or manifest -> items -> plan -> worker(s) -> pictures, records -> results.jsonl
"""

from __future__ import annotations

from .cluster import Cluster as Cluster
from .cluster import on_ray as on_ray
from .items import Item as Item
from .items import Sources as Sources
from .items import find_items as find_items
from .items import item_seed as item_seed
from .plan import Plan as Plan
from .plan import make_plan as make_plan
from .runner import Summary as Summary
from .runner import here as here
from .runner import run as run
from .worker import Order as Order
