"""Prompts: texts with gaps, which a person picks and the client's model is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tfo_mcp.domain.errors import InvalidPromptArgument, UnknownPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptArgument:
    """One gap.

    Attributes:
        values: what is offered for it.
        closed: whether it can be nothing else.
        max_line: characters of its one line; None: a text, as long as a message may be.
    """

    name: str
    description: str
    required: bool = False
    values: Sequence[str] = ()
    closed: bool = False
    max_line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt.

    Attributes:
        render: makes the text from arguments that fit; those that are left out are not there.
    """

    name: str
    title: str
    description: str
    arguments: Sequence[PromptArgument]
    render: Callable[[Mapping[str, str]], str]

    def fill(self, given: Mapping[str, str]) -> str:
        """The text with the gaps filled; a blank argument is one that is left out.

        Raises:
            InvalidPromptArgument: one is missing, unknown, or not what it may be.
        """
        arguments = {name: value for name, value in given.items() if value.strip()}
        for argument in self.arguments:
            self._check(argument, arguments.get(argument.name))
        names = [argument.name for argument in self.arguments]
        for name in given:
            if name not in names:
                raise InvalidPromptArgument(self.name, f"has no argument {name[:200]!r}, only {', '.join(names)}")
        return self.render(arguments)

    def _check(self, argument: PromptArgument, value: str | None) -> None:
        name, most = argument.name, argument.max_line
        if value is None:
            if argument.required:
                raise InvalidPromptArgument(self.name, f"needs the argument {name!r}")
        elif argument.closed and value not in argument.values:
            raise InvalidPromptArgument(self.name, f"takes as {name!r} one of {', '.join(argument.values)}")
        elif most is not None and not (len(value) <= most and value.isprintable()):
            raise InvalidPromptArgument(self.name, f"takes as {name!r} one line of at most {most} characters")


class PromptRegistry:
    """The prompts of this server, by name, in the order in which they were given."""

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self._prompts = {prompt.name: prompt for prompt in prompts}

    def find(self, name: str) -> Prompt:
        """The prompt called `name`.

        Raises:
            UnknownPrompt: there is none.
        """
        prompt = self._prompts.get(name)
        if prompt is None:
            raise UnknownPrompt(name)
        return prompt

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._prompts.values())
