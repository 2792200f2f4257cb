"""The pages of the contracts: what proto/ says of services, messages and fields; `make proto` writes them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

from writers.markdown import code, plain, table

__all__ = ["pages"]


class Page(NamedTuple):
    """The title of a page, and how the paths of its contracts begin."""

    title: str
    contracts: Sequence[str]


PAGES: Mapping[str, Page] = {
    "manifest": Page("Manifest of an artifact", ["kerve/artifact/"]),
    "inference-service": Page("Open Inference Protocol", ["inference/grpc_service"]),
    "model-configuration": Page("Triton's ModelConfig", ["inference/model_config"]),
    "evaluation-service": Page("Evaluation", ["kerve/evaluation/"]),
    "tensorflow-serving": Page("TensorFlow Serving", ["tensorflow_serving/", "tensorflow/"]),
}

# Numbers of fields in descriptor.proto: the path to a comment is made of them, each before a position.
MESSAGES, ENUMS, SERVICES, SYNTAX = 4, 5, 6, 12
FIELDS, NESTED, NESTED_ENUMS, ALTERNATIVES, METHODS, VALUES = 2, 3, 4, 8, 2, 2

Position = tuple[int, ...]
#: By the full name of a message or enum, ".inference.ModelConfig", where it is described.
Places = dict[str, str]


def pages(files: Collection[FileDescriptorProto]) -> Iterator[tuple[str, str]]:
    """Yield the path below docs/ and the text of every page; the files come with their comments."""
    described = {
        name: [
            Contract(file)
            for file in sorted(files, key=_services_first)
            if file.name.startswith(tuple(page.contracts))
        ]
        for name, page in PAGES.items()
    }
    for name, page in PAGES.items():
        places = {
            kind: f"{'' if other == name else f'{other}.md'}#{_anchor(contract.title(kind))}"
            for other, contracts in described.items()
            for contract in contracts
            for kind in contract.kinds()
        }
        contracts = described[name]
        yield (
            f"reference/{name}.md",
            "\n".join(
                [
                    f"# {page.title}\n",
                    _origin(contracts),
                    *dict.fromkeys(contract.comment((SYNTAX,)) + "\n" for contract in contracts),
                    *(section for contract in contracts for section in contract.sections(places)),
                ]
            ),
        )


def _services_first(file: FileDescriptorProto) -> tuple[bool, str]:
    return not file.service, file.name


def _anchor(title: str) -> str:
    """Return the anchor that a code host and Sphinx give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _origin(contracts: "Sequence[Contract]") -> str:
    roots = [each.file.name for each in contracts if each.file.service] or [contracts[0].file.name]
    sources = " and ".join(f"[{name}](../../proto/{name})" for name in roots)
    return f"Written by `make proto` from {sources}, and what they import; `make proto-check` compares it.\n"


class Contract:
    """One file of proto/."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.file = file
        self._comments = {
            tuple(each.path): plain("".join([*each.leading_detached_comments, each.leading_comments]))
            for each in file.source_code_info.location
        }

    def comment(self, position: Position) -> str:
        """Return what stands above a definition."""
        return self._comments.get(position, "")

    def title(self, kind: str) -> str:
        """Return a name without the package."""
        return kind.removeprefix(f".{self.file.package}.")

    def kinds(self) -> Iterator[str]:
        """Yield the full names of messages and enums."""
        yield from (kind for kind, *_ in self._messages())
        yield from (kind for kind, *_ in self._enums())

    def sections(self, places: Places) -> Iterator[str]:
        """Yield a section for each service, message and enum."""
        for number, service in enumerate(self.file.service):
            yield self._section(service.name, (SERVICES, number), self._methods(service, number, places))
        for kind, message, position in self._messages():
            yield self._section(self.title(kind), position, self._fields(message, position, places))
        for kind, enum, position in self._enums():
            yield self._section(self.title(kind), position, self._values(enum, position))

    def _section(self, title: str, position: Position, content: str) -> str:
        comment = self.comment(position)
        return "\n".join([f"## {title}\n", *([comment + "\n"] if comment else []), content])

    def _messages(self) -> Iterator[tuple[str, DescriptorProto, Position]]:
        """Yield name, descriptor and position of every message, those within others behind them."""
        waiting: list[tuple[str, DescriptorProto, Position]] = [
            (f".{self.file.package}.{message.name}", message, (MESSAGES, number))
            for number, message in enumerate(self.file.message_type)
        ]
        while waiting:
            kind, message, position = waiting.pop(0)
            yield kind, message, position
            waiting[:0] = [
                (f"{kind}.{inner.name}", inner, (*position, NESTED, number))
                for number, inner in enumerate(message.nested_type)
                if not inner.options.map_entry
            ]

    def _enums(self) -> Iterator[tuple[str, EnumDescriptorProto, Position]]:
        for number, enum in enumerate(self.file.enum_type):
            yield f".{self.file.package}.{enum.name}", enum, (ENUMS, number)
        for kind, message, position in self._messages():
            for number, enum in enumerate(message.enum_type):
                yield f"{kind}.{enum.name}", enum, (*position, NESTED_ENUMS, number)

    def _methods(self, service: ServiceDescriptorProto, number: int, places: Places) -> str:
        full = f"{self.file.package}.{service.name}"
        rows = [
            (
                code(method.name),
                ("stream of " if method.client_streaming else "") + _link(method.input_type, places),
                ("stream of " if method.server_streaming else "") + _link(method.output_type, places),
                self.comment((SERVICES, number, METHODS, position)),
            )
            for position, method in enumerate(service.method)
        ]
        return f"`{full}`\n\n{table(('method', 'request', 'reply', 'meaning'), rows)}"

    def _fields(self, message: DescriptorProto, position: Position, places: Places) -> str:
        if not message.field:
            return "No fields.\n"
        rows = [
            (
                str(field.number),
                code(field.name),
                _type(field, message, places),
                self.comment((*position, FIELDS, at)),
            )
            for at, field in enumerate(message.field)
        ]
        comments = [
            f"`{each.name}`: {comment}\n\n"
            for at, each in enumerate(message.oneof_decl)
            if (comment := self.comment((*position, ALTERNATIVES, at)))
        ]
        return "".join(comments) + table(("number", "field", "type", "meaning"), rows)

    def _values(self, enum: EnumDescriptorProto, position: Position) -> str:
        rows = [
            (str(value.number), code(value.name), self.comment((*position, VALUES, at)))
            for at, value in enumerate(enum.value)
        ]
        return table(("number", "value", "meaning"), rows)


def _link(kind: str, places: Places) -> str:
    """Return a type's name, with a link to where it is described, if it is."""
    place = places.get(kind)
    if place is None:
        return code(kind.removeprefix("."))
    return f"[{'.'.join(part for part in kind.split('.') if part[:1].isupper())}]({place})"


def _type(field: FieldDescriptorProto, message: DescriptorProto, places: Places) -> str:
    """Return a field's type as a contract writes it, with the alternative that it belongs to."""
    entries = {each.name: each.field for each in message.nested_type if each.options.map_entry}
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"map of {_scalar(entry[0], places)} to {_scalar(entry[1], places)}"
    if field.proto3_optional:
        return f"optional {_scalar(field, places)}"
    if field.HasField("oneof_index"):
        return f"{_scalar(field, places)}, or another `{message.oneof_decl[field.oneof_index].name}`"
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"{'repeated ' if repeated else ''}{_scalar(field, places)}"


def _scalar(field: FieldDescriptorProto, places: Places) -> str:
    if field.type_name:
        return _link(field.type_name, places)
    return code(FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower())
