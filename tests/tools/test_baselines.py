"""The baseline for comparisons reads every language."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "simulations" / "compare.py"


def test_texts_without_blanks_are_split_into_characters() -> None:
    spec = importlib.util.spec_from_file_location("simulations_compare", PATH)
    assert spec is not None
    assert spec.loader is not None
    compare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compare)
    chinese = ["质量很好，物流也很快", "屏幕太小，物流很慢"]
    seen = compare.vectorizer(chinese).fit(chinese).get_feature_names_out()
    assert {"物流", "很"} <= set(seen)
    english = ["good quality and fast", "the screen is small"]
    assert "fast" in compare.vectorizer(english).fit(english).get_feature_names_out()
