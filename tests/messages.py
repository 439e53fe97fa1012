"""What holds for every message that a user can get, and all that the source can say."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import prebuilt_spawner
from prebuilt_spawner import errors
from prebuilt_spawner.build import failure
from prebuilt_spawner.hub import errors as hub_errors

PACKAGE = Path(prebuilt_spawner.__file__).parent
ERROR_CLASSES = {
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.PrebuiltError)
}
IMPORTED = {"TELL": failure.TELL, "SOURCE_ADVICE": failure.SOURCE_ADVICE, "GENERIC_MESSAGE": hub_errors.GENERIC_MESSAGE}
"""Constants that modules share."""

MAX_CHARACTERS = 400
PLACEHOLDER = "thing"
"""What stands for a value that the source does not say."""

_PATH = re.compile(r"(?<![\w.])~?/[\w.-]+|[A-Za-z]:\\\w|(?<![\w.-])\.{1,2}/\w")
_USERINFO = re.compile(r"[a-z]+://[^\s/@]+@")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b[a-z]+://")
_ADVICE = re.compile(
    r"\b(?:[Tt]ry|[Aa]sk|[Tt]ell|[Ll]eave|[Ss]tart|[Cc]hoose|[Ww]rite|[Cc]heck|[Uu]se|[Ss]horten|[Rr]emove|[Ss]plit|Run)\b"
    r"|Did you mean|at most|must be|There are:|Options are|are installed\.|is one requirement|come from the index"
    r"|such as"
)


def faults(message: str) -> list[str]:
    """What is wrong with a message for users; nothing of a good one."""
    found = {
        "is empty": not message.strip(),
        f"has more than {MAX_CHARACTERS} characters": len(message) > MAX_CHARACTERS,
        "has several lines": "\n" in message,
        "holds a path": bool(_PATH.search(message)),
        "holds a traceback": "Traceback" in message or 'File "' in message,
        "names a class": bool(re.search(r"\b(?:[A-Z]+[a-z]+)*(?:[A-Z]+)?(?:Error|Exception)\b|Errno", message)),
        "holds credentials": bool(_USERINFO.search(message)),
        "holds an address": bool(_ADDRESS.search(message)),
        "does not end as a sentence": not message.endswith((".", "?")),
        "does not begin as a sentence": not re.match(r"[A-Za-z0-9\"']", message),
        "says nothing to do": not _ADVICE.search(message),
    }
    return [what for what, wrong in found.items() if wrong]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A message in the source, with placeholders for what only a run knows."""

    module: str
    line: int
    text: str


def written_messages(module: Path) -> Iterator[Written]:
    """Every message for users in a module."""
    tree = ast.parse(module.read_text("utf-8"))
    source = _Source(tree)
    for function, call in source.calls():
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in ERROR_CLASSES and call.args:
            texts = source.texts(call.args[0], function)
        elif name == "Failure":
            keywords = {keyword.arg: keyword.value for keyword in call.keywords}
            what = source.texts(keywords["what"], function)
            advice = source.texts(keywords["advice"], function) if "advice" in keywords else [""]
            texts = [" ".join(pair).strip() for pair in itertools.product(what, advice)]
        else:
            continue
        for text in texts:
            yield Written(module=module.relative_to(PACKAGE).as_posix(), line=call.lineno, text=text)


class _Source:
    """A module's text, as far as it decides about messages."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._constants = {
            target.id: statement.value
            for statement in tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }

    def calls(self) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
        """Every call, with the innermost function around it."""
        yield from self._calls(self._tree, None)

    def texts(self, node: ast.expr, function: ast.FunctionDef | None) -> list[str]:
        """What an expression can say. Nothing for what comes from elsewhere as a whole, which is judged there."""
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.IfExp):
            return [*self.texts(node.body, function), *self.texts(node.orelse, function)]
        if isinstance(node, ast.BinOp):
            return self._joined([node.left, node.right], function)
        if isinstance(node, ast.JoinedStr):
            return self._joined(node.values, function)
        if isinstance(node, ast.Name):
            return self._named(node.id, function)
        return []

    def _calls(
        self, node: ast.AST, function: ast.FunctionDef | None
    ) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield function, child
            inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            yield from self._calls(child, inner)  # type: ignore[arg-type]

    def _joined(self, parts: list[ast.expr], function: ast.FunctionDef | None) -> list[str]:
        alternatives = []
        for part in parts:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            alternatives.append(self.texts(inner, function) or [PLACEHOLDER])
        return ["".join(choice) for choice in itertools.product(*alternatives)]

    def _named(self, name: str, function: ast.FunctionDef | None) -> list[str]:
        if name in IMPORTED:
            return [IMPORTED[name]]
        if name in self._constants:
            return self.texts(self._constants[name], None)
        if function is None:
            return []
        assigned = [
            text
            for statement in ast.walk(function)
            if isinstance(statement, ast.Assign)
            for target, value in self._targets(statement)
            if target == name
            for text in self.texts(value, function)
        ]
        return assigned or self._given(name, function)

    @staticmethod
    def _targets(statement: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
            elif isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                for one, value in zip(target.elts, statement.value.elts, strict=True):
                    if isinstance(one, ast.Name):
                        yield one.id, value

    def _given(self, name: str, function: ast.FunctionDef) -> list[str]:
        """What the module's calls of the function give as this argument."""
        names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
        if name not in names:
            return []
        texts = []
        for outer, call in self.calls():
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if called == function.name and outer is not function:
                keywords = {keyword.arg: keyword.value for keyword in call.keywords}
                position = names.index(name)
                value = call.args[position] if position < len(call.args) else keywords.get(name)
                if value is not None:
                    texts += self.texts(value, outer)
        return texts
