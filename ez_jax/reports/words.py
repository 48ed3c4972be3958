"""Settings in words: ideas by their names, other keys as on the command line."""

IDEAS = {
    "value_prefix": "value prefix",
    "consistency": "consistency",
    "off_policy_correction": "off-policy correction",
    "prioritised": "prioritised replay",
    "learner.augment": "augmentation",
    "reanalyse.mode": "reanalysis",
    "reanalyse.ratio": "share reanalysed",
    "search.policy": "search policy",
    "search.num_simulations": "simulations",
    "targets.value": "value target",
}


def of_keys(names: str) -> str:
    """One key, or several joined as a `Switch` joins them."""
    for joint in (" and ", " + "):
        if joint in names:
            return joint.join(map(of_keys, names.split(joint)))
    return IDEAS.get(names, names)


def of_arm(name: str) -> str:
    """A difference from the baseline in words: `without consistency`, `simulations 8`, ..."""
    return ", ".join(map(_of_change, name.split(", ")))


def _of_change(change: str) -> str:
    key, _, value = change.partition("=")
    if key not in IDEAS:
        return change
    if value in ("false", "none"):
        return f"without {IDEAS[key]}"
    return f"with {IDEAS[key]}" if value == "true" else f"{IDEAS[key]} {value}"
