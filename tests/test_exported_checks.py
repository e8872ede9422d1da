"""Each notebook's checks, run against the *exported* module.

`nbdev_test` checks the definitions in the notebook's own cells; a stale or damaged file in `niwt_nb/` would pass. Here every cell that is not exported runs in
a namespace filled from the imported module, which also makes branch coverage of the package real.
"""

import importlib
import os
import traceback

import pytest
from notebooks import MODULES, NBS, cells, module_name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_checks_hold_for_the_exported_module(path, monkeypatch):
    monkeypatch.chdir(NBS)
    monkeypatch.setitem(os.environ, "IN_TEST", "1")
    module = importlib.import_module(module_name(path))
    space = {**vars(module), "__name__": module.__name__}
    ran = 0
    for cell in cells(path):
        if cell.kind != "code" or cell.exported or cell.skipped or not cell.source.strip():
            continue
        try:
            exec(compile(cell.source, f"{path.name}[cell {cell.number}]", "exec"), space)
        except BaseException:
            pytest.fail(f"{path.name}, cell {cell.number}:\n{cell.source}\n\n{traceback.format_exc(limit=-6)}", pytrace=False)
        ran += 1
    assert ran >= 5, f"{path.name} has only {ran} check cells"
