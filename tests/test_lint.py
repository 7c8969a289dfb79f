"""What no linter rule says: lasting files go through edgeunip.durable, and some things are never done at all."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("edgeunip", "train", "compress", "runtimes", "devices")
LINKS = {ROOT / "edgeunip" / name for name in FOLDERS[1:]}
SOURCES = sorted(file for name in FOLDERS for file in (ROOT / name).rglob("*.py") if not LINKS & set(file.parents))

# Calls that write a file, by the dotted end of what is called.
WRITERS = {
    *("np.save", "np.savez", "np.savez_compressed", "np.savetxt", "numpy.save", "numpy.savez", "numpy.savetxt"),
    *("cv2.imwrite", "cv2.imwritemulti", "cv2.VideoWriter", "torch.save", "json.dump", "tomli_w.dump", "toml.dump"),
    *("pickle.dump", "joblib.dump", "onnx.save", "onnx.save_model", "openvino.save_model", "ov.save_model"),
    *("save_file", "savefig", "imsave", "tofile", "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.move"),
    *("shutil.copytree", "os.rename", "os.replace", "os.link", "os.symlink", "torch.onnx.export"),
}
METHODS = {"write_text", "write_bytes", "symlink_to", "hardlink_to", "rename", "touch"}
# The one module that reads weights published as a pickle; it must restrict what the pickle may hold.
UNPICKLER = ROOT / "train" / "public" / "files.py"
# Blocks whose files are put in place durably, or do not last.
SHELTERS = {"durable.folder", "tempfile.TemporaryDirectory", "TemporaryDirectory", "tempfile.TemporaryFile"}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or attribute; an unknown root is left out (``x().b`` is ``b``)."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        root = dotted(node.value)
        return f"{root}.{node.attr}" if root else node.attr
    return ""


def ends_with(name: str, known: set[str]) -> bool:
    return any(name == one or name.endswith(f".{one}") for one in known)


def mode_of(call: ast.Call) -> str:
    """The mode of an open call."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    position = 0 if isinstance(call.func, ast.Attribute) and dotted(call.func) not in ("io.open", "gzip.open") else 1
    given += call.args[position : position + 1]
    for value in given:
        if isinstance(value, ast.Name) and "mode" in value.id:
            return "+"  # computed: it may write
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return "r"


def is_memory(call: ast.Call, buffers: set[str]) -> bool:
    return any(isinstance(arg, ast.Name) and arg.id in buffers for arg in call.args)


def writes(call: ast.Call, buffers: set[str]) -> bool:
    name = dotted(call.func)
    last = name.rpartition(".")[2]
    if name.startswith("durable.") or name == "safetensors.torch.save" or is_memory(call, buffers):
        return False
    if ends_with(name, WRITERS) or (isinstance(call.func, ast.Attribute) and last in METHODS):
        return True
    if name in ("os.open", "av.open", "wave.open", "tarfile.open", "zipfile.ZipFile", "Image.open", "webbrowser.open"):
        text = ast.unparse(call)
        return bool(re.search(r"O_CREAT|'[wax]'|'w:", text)) and "BytesIO" not in text
    return last == "open" and bool(set(mode_of(call)) & set("wax+"))


def visit(node: ast.AST, sheltered: bool, buffers: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of every forbidden thing below a node."""
    if isinstance(node, ast.With):
        names = {dotted(item.context_expr.func) for item in node.items if isinstance(item.context_expr, ast.Call)}
        sheltered = sheltered or any(ends_with(name, SHELTERS) for name in names)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        memory = ends_with(dotted(node.value.func), {"BytesIO", "StringIO"})
        buffers |= {target.id for target in node.targets if memory and isinstance(target, ast.Name)}
    if isinstance(node, ast.Call):
        if not sheltered and writes(node, buffers):
            yield node.lineno, f"writes a file outside edgeunip.durable: {ast.unparse(node)[:80]}"
        yield from forbidden_call(node)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            if module.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"):
                yield node.lineno, f"imports {module}"
    if isinstance(node, ast.ExceptHandler):
        yield from forbidden_handler(node)
    inner = set(buffers) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else buffers
    for child in ast.iter_child_nodes(node):
        yield from visit(child, sheltered, inner)


def forbidden_call(call: ast.Call) -> Iterator[tuple[int, str]]:
    name = dotted(call.func)
    given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    bare = isinstance(call.func, ast.Name) and name in ("eval", "exec", "compile", "__import__")
    if name == "torch.load" or name == "os.system" or bare:
        yield call.lineno, f"calls {name}" + (", restricted" if given.get("weights_only") is True else "")
    if given.get("weights_only") is False or given.get("allow_pickle") is True or given.get("shell") is True:
        yield call.lineno, f"{name} with {given}"
    if given.get("strict") is False and name != "zip":
        yield call.lineno, f"{name} with strict=False"
    if ends_with(name, {"contextlib.suppress", "suppress"}):
        for kind in call.args:
            if dotted(kind) in ("Exception", "BaseException"):
                yield call.lineno, f"suppresses every {dotted(kind)}"


def forbidden_handler(handler: ast.ExceptHandler) -> Iterator[tuple[int, str]]:
    if handler.type is None:
        yield handler.lineno, "bare except"
        return
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    wide = any(dotted(kind) in ("Exception", "BaseException") for kind in kinds)
    idle = all(
        isinstance(s, (ast.Pass, ast.Continue)) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        for s in handler.body
    )
    if wide and idle:
        yield handler.lineno, f"swallows every {ast.unparse(handler.type)}"


def findings(source: str) -> list[tuple[int, str]]:
    """Every forbidden thing of a module. A line with ``# durable: why`` may write, into a folder handed down."""
    allowed = {n for n, line in enumerate(source.splitlines(), 1) if re.search(r"# durable: \w", line)}
    return [
        (line, what)
        for line, what in visit(ast.parse(source), False, set())
        if not (line in allowed and "outside edgeunip.durable" in what)
    ]


def test_there_is_something_to_check() -> None:
    names = {str(file.relative_to(ROOT)) for file in SOURCES}
    assert {"edgeunip/durable.py", "edgeunip/bundle.py"} <= names
    assert not any(name.startswith(("edgeunip/train/", "edgeunip/devices/")) for name in names), "each file once"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_sources(file: Path) -> None:
    found = findings(file.read_text())
    if file.name == "durable.py" and file.parent.name == "edgeunip":
        found = [(line, what) for line, what in found if "outside edgeunip.durable" not in what]
    if file == UNPICKLER:
        found = [(line, what) for line, what in found if what != "calls torch.load, restricted"]
    assert not found, "\n".join(f"{file.relative_to(ROOT)}:{line}: {what}" for line, what in found)


CAUGHT = [
    "open('x', 'w')",
    "open('x', mode='ab')",
    "open(p, 'r+')",
    "p.open('wb')",
    "p.open(mode)",
    "io.open(p, 'x')",
    "p.write_text('')",
    "a.b().write_bytes(b'')",
    "np.save('x', a)",
    "numpy.savez(p, a=a)",
    "cv2.imwrite(p, a)",
    "torch.save(a, p)",
    "json.dump(a, f)",
    "safetensors.torch.save_file(a, p)",
    "fig.savefig(p)",
    "shutil.copy(a, b)",
    "os.replace(a, b)",
    "os.open(p, os.O_RDWR | os.O_CREAT)",
    "av.open(p, 'w')",
    "gzip.open(p, 'wb')",
    "torch.load(p, weights_only=True)",
    "load(p, weights_only=False)",
    "m.load_state_dict(s, strict=False)",
    "np.load(p, allow_pickle=True)",
    "eval('1')",
    "subprocess.run(c, shell=True)",
    "import pickle",
    "from pickle import load",
    "import joblib.externals",
    "try:\n a\nexcept:\n raise",
    "try:\n a\nexcept Exception:\n pass",
    "try:\n a\nexcept (OSError, Exception):\n ...",
    "for a in b:\n try:\n  a\n except BaseException:\n  continue",
    "with contextlib.suppress(Exception):\n a",
    "with other.folder(p) as s:\n s.write_text('')",
    "b = io.BytesIO()\ndef f():\n np.save('x', b2)",
]
PASSED = [
    "open('x')",
    "open('x', 'rb')",
    "p.open()",
    "p.open('rb')",
    "durable.write_text(p, '')",
    "durable.write_bytes(p, b'')",
    "with durable.folder(p) as s:\n (s / 'a').write_bytes(b'')",
    "zip(a, b, strict=False)",
    "np.load(p, allow_pickle=False)",
    "with tempfile.TemporaryDirectory() as t:\n onnx.save(m, t)",
    "def f():\n b = io.BytesIO()\n np.savez_compressed(b, a=a)",
    "try:\n a\nexcept Exception as e:\n raise X from e",
    "try:\n a\nexcept OSError:\n pass",
    "json.dumps(a)",
    "model.eval()",
    "p.write_text('')  # durable: the caller's staging folder",
    "os.open(p, os.O_RDONLY)",
    "torch.compile(m)",
    "stream.write(b'')",
    "safetensors.torch.save(tensors)",
    "safetensors.torch.load(data)",
    "os.open(p, os.O_RDWR)",
    "with contextlib.suppress(OSError):\n a",
]


@pytest.mark.parametrize("source", CAUGHT)
def test_negative_control_what_is_caught(source: str) -> None:
    assert findings(source)


@pytest.mark.parametrize("source", PASSED)
def test_what_is_allowed(source: str) -> None:
    assert findings(source) == []
