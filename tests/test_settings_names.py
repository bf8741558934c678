"""A setting's name has one unit in all recipes, so that one `--set` over several arms means one thing."""

from etude.assembly import resolved_stages
from etude.methods import catalogue, find
from etude.settings import parameters


def test_a_name_has_one_unit() -> None:
    units: dict[str, dict[str, str]] = {}
    for name in catalogue():
        for stage, made in resolved_stages(find(name)).items():
            for parameter in parameters(made.factory).values():
                units.setdefault(parameter.name, {})[parameter.setting.unit] = f"{name}: {stage}"
    assert not {name: found for name, found in units.items() if len(found) > 1}
