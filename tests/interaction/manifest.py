"""The whole of what the server promises, area by area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interaction.arrow import Arrow
from interaction.behaviour import Behaviour
from interaction.behaviours import features, lifecycle, messages, records, sends, state, telemetry, tools
from interaction.diagrams import flowcharts, sequences, states

AREAS: Mapping[str, Sequence[Behaviour]] = {
    "Handshake": lifecycle.HANDSHAKE,
    "Stateless requests": lifecycle.STATELESS,
    "Messages": messages.MESSAGES,
    "Errors": messages.ERRORS,
    "Ping, progress, cancellation": messages.UTILITIES,
    "Transports": messages.TRANSPORTS,
    "Tools": tools.TOOLS,
    "Tool execution": tools.EXECUTION,
    "Resources, prompts, completion, logging": features.OFFERS,
    "What is asked of the client": features.CLIENT,
    "Sessions": state.SESSIONS,
    "Conversations": state.CONVERSATIONS,
    "Files, structured output, cost": sends.SENDS,
    "Records of conversations": records.RECORDS,
    "Claude": state.CLAUDE,
    "Telemetry": telemetry.TELEMETRY,
    "Telemetry client": telemetry.CLIENT,
}

ALL: Sequence[Behaviour] = tuple(behaviour for area in AREAS.values() for behaviour in area)

DIAGRAMS: Mapping[str, Sequence[Arrow]] = {
    arrows[0].diagram: arrows
    for arrows in (
        flowcharts.OVERVIEW,
        flowcharts.CONTEXT,
        flowcharts.SYSTEM,
        flowcharts.REQUEST,
        flowcharts.TOOL,
        flowcharts.CLAUDE,
        flowcharts.TELEMETRY,
        states.SESSION,
        states.CONVERSATION,
        states.EXECUTION,
        states.TELEMETRY,
        sequences.SESSION,
        sequences.CLAUDE,
        sequences.RECORDING,
        sequences.ERRORS,
    )
}
