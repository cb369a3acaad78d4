"""Seeded web sites: the resources of a page, their sizes, and which of them leads to which."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

SHARED_NAMES: Final = ("cdn0.shared.test", "cdn1.shared.test", "ads.shared.test")
"""Names that several sites use."""

VARIANTS: Final = 6
"""Files of which each load of a page takes another one, as an advertisement does."""

MAX_SHEETS: Final = 5
"""Style sheets of a page."""

PAGE_BYTES: Final = (400_000, 5_000_000)
"""The bytes of a page are drawn between these, by their logarithm; the middle is near that of the web."""

_SHARES: Final = {"html": 0.06, "css": 0.08, "js": 0.33, "image": 0.53}
_LEAST_BYTES: Final = {"html": 3000, "css": 1500, "js": 800, "image": 400}


@dataclass(slots=True)
class Resource:
    """One file of a page, and the files that it makes a browser load."""

    host: str
    path: str
    kind: str
    """``html``, ``css``, ``js``, ``image`` or ``variant``: an image of which there are ``VARIANTS`` files."""
    size: int
    think: float = 0.0
    """Seconds between the end of this file and the requests for its children, for the fetcher."""
    children: list[Resource] = field(default_factory=list)

    def walk(self) -> Iterator[Resource]:
        """Yield this resource and everything below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def files(self) -> list[tuple[str, int]]:
        """Return the paths of this resource on its host, with their sizes."""
        if self.kind != "variant":
            return [(self.path, self.size)]
        return [(variant_path(self.path, which), variant_size(self.size, which)) for which in range(VARIANTS)]


@dataclass(frozen=True, slots=True)
class Site:
    """One page with everything that belongs to it."""

    number: int
    root: Resource

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"https://{self.root.host}{self.root.path}"

    def hosts(self) -> list[str]:
        """Return every name that a load of the page asks for."""
        return sorted({resource.host for resource in self.root.walk()})

    def bytes(self) -> int:
        """Return the bytes of a load, the variants by their base size."""
        return sum(resource.size for resource in self.root.walk())


def make_site(seed: int, number: int) -> Site:
    """Return the site with this number of the world with this seed: always the same one."""
    draw = random.Random(f"site {seed} {number}")
    own, static = f"www.site{number}.test", f"static.site{number}.test"
    shared = draw.sample(SHARED_NAMES, draw.randint(1, len(SHARED_NAMES)))
    low, high = (math.log(bound) for bound in PAGE_BYTES)
    total = math.exp(draw.uniform(low, high))
    counts = {"css": draw.randint(1, MAX_SHEETS), "js": draw.randint(3, 25), "image": draw.randint(8, 60)}
    sizes = {kind: _split(draw, kind, total, count) for kind, count in counts.items()}

    def resource(kind: str, index: int, size: int) -> Resource:
        host = draw.choices((own, static, draw.choice(shared)), (2, 5, 3))[0]
        think = size * draw.uniform(2e-8, 2e-7) + draw.uniform(0.002, 0.015)
        suffix = "png" if kind in ("image", "variant") else kind
        # real addresses differ much in length, and so do the requests for them
        slug = "".join(draw.choices("abcdefghijkmnopqrstuvwxyz0123456789", k=_slug_length(draw)))
        return Resource(host, f"/s{number}/{slug}/{kind}{index}.{suffix}", kind, size, think)

    made = {kind: [resource(kind, at, size) for at, size in enumerate(sizes[kind])] for kind in sizes}
    html = int(max(_LEAST_BYTES["html"], total * _SHARES["html"] * draw.uniform(0.5, 1.5)))
    root = Resource(own, f"/s{number}/", "html", html, draw.uniform(0.01, 0.05))
    root.children = [*made["css"], *made["js"]]
    parents = [root, root, *made["css"], *made["js"]]
    for image in made["image"]:
        draw.choice(parents).children.append(image)
    advert = resource("variant", 0, draw.randint(5_000, 40_000))
    advert.host = SHARED_NAMES[-1]
    draw.choice(made["js"]).children.append(advert)
    return Site(number, root)


def variant_path(path: str, which: int) -> str:
    """Return the path of one of a variant's files."""
    return path.replace(".", f"-{which}.", 1)


def variant_size(size: int, which: int) -> int:
    """Return the size of one of a variant's files: up to a third more or less than the base size."""
    return int(size * (1 + (which / (VARIANTS - 1) - 0.5) * 2 / 3))


def as_data(resource: Resource) -> dict[str, Any]:
    """Return the resource with its children as JSON data."""
    return {
        "host": resource.host,
        "path": resource.path,
        "kind": resource.kind,
        "size": resource.size,
        "think": resource.think,
        "children": [as_data(child) for child in resource.children],
    }


def from_data(data: dict[str, Any]) -> Resource:
    """Return the resource that :func:`as_data` described."""
    children = [from_data(child) for child in data["children"]]
    return Resource(data["host"], data["path"], data["kind"], data["size"], data["think"], children)


def _slug_length(draw: random.Random) -> int:
    return min(160, int(draw.lognormvariate(math.log(30), 0.8)))


def _split(draw: random.Random, kind: str, total: float, count: int) -> list[int]:
    """Return ``count`` sizes, few of them large, that make up this kind's share of the page."""
    shares = [draw.lognormvariate(0.0, 1.1) for _ in range(count)]
    whole = total * _SHARES[kind] * draw.uniform(0.6, 1.4)
    return [int(max(_LEAST_BYTES[kind], whole * share / sum(shares))) for share in shares]
