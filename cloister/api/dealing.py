"""`cloister.partition`: deals one table or file to the sites of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.data.config import Partition


@dataclass(frozen=True, eq=False)
class Dealt:
    """Training data and the way in which they are dealt to sites; made by `cloister.partition`.

    Attributes:
        data: A table, or a source of a recipe.
        fields: Fields of the recipe's `[data]`.
    """

    data: object
    fields: dict[str, object]


def partition(
    data: object,
    *,
    sites: int,
    by: Partition | None = None,
    alpha: float | None = None,
) -> Dealt:
    """Sets how a simulation deals training data to sites.

    >>> import cloister as cl
    >>> rows = [{"text": "chest pain", "label": "cardiology"}] * 100
    >>> dealt = cl.partition(rows, sites=5, alpha=0.3)
    >>> dealt.fields
    {'sites': 5, 'partition': 'dirichlet', 'alpha': 0.3}

    Args:
        data: A pandas.DataFrame, pyarrow.Table, datasets.Dataset or list of dicts; or a file, a
            hub id or `synthetic:hospitals`.
        sites: Number of sites.
        by: `iid`; `dirichlet`: label shares are drawn for each site; `quantity`: sizes are drawn;
            `column`: by the rows' site column; `person`: each person to one site. Absent:
            `dirichlet` with an `alpha`, else `iid`.
        alpha: Concentration of `dirichlet` and `quantity`: smaller is more skewed.
    """
    implied = "iid" if alpha is None else "dirichlet"
    fields: dict[str, object] = {"sites": sites, "partition": by or implied}
    if alpha is not None:
        fields["alpha"] = alpha
    return Dealt(data, fields)
