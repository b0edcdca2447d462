"""Claude at Amazon Bedrock and Google's Vertex AI: the SDK's own clients, with credentials by those clouds' means.

Each needs an extra of this package, and imports what it brings late. Neither says what it knows of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

from tfo_mcp.domain.errors import ClaudeFailure

if TYPE_CHECKING:
    from anthropic.lib.bedrock import AsyncAnthropicBedrock
    from anthropic.lib.vertex import AsyncAnthropicVertex

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Cloud(Protocol):
    """Where else Claude can be asked.

    Attributes:
        name: that of `claude.provider`, and of the extra.
        provider: as `gen_ai.provider.name` says it.
        title: what people call it.
        credentials: what to check where it refuses them, as the end of a sentence.
    """

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def credentials(self) -> str: ...

    def check_installed(self) -> None:
        """Guard of every send.

        Raises:
            ClaudeFailure: the extra is missing.
        """
        ...

    def client(self, **options: Any) -> AsyncAnthropicBedrock | AsyncAnthropicVertex:  # noqa: ANN401  # the SDK's
        """The SDK's client; takes a while. `options` are those that all its clients have.

        Raises:
            ClaudeFailure: something that it needs is not configured.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bedrock:
    """Amazon Bedrock; `region` None: as the AWS configuration says."""

    region: str | None
    name = "bedrock"
    provider = "aws.bedrock"
    title = "Amazon Bedrock"
    credentials = "check the AWS credentials, and whether they may use this model in claude.aws_region"

    def check_installed(self) -> None:
        """See `Cloud`."""
        _check_extra(self, "boto3")

    def client(self, **options: Any) -> AsyncAnthropicBedrock:  # noqa: ANN401  # the SDK's
        """See `Cloud`."""
        from anthropic.lib.bedrock import AsyncAnthropicBedrock

        try:
            return AsyncAnthropicBedrock(aws_region=self.region, **options)
        except ValueError:
            region = "Amazon Bedrock is asked in a region, and none is configured: set claude.aws_region"
        raise ClaudeFailure(region)


@dataclass(frozen=True, slots=True)
class Vertex:
    """Google's Vertex AI; `project` None: that of the credentials."""

    project: str | None
    region: str | None
    name = "vertex"
    provider = "gcp.vertex_ai"
    title = "Vertex AI"
    credentials = "check Google's application default credentials, and whether they may use this model"

    def check_installed(self) -> None:
        """See `Cloud`."""
        _check_extra(self, "google.auth")

    def client(self, **options: Any) -> AsyncAnthropicVertex:  # noqa: ANN401  # the SDK's
        """See `Cloud`."""
        import google.auth as google_auth
        from anthropic.lib.vertex import AsyncAnthropicVertex
        from google.auth.exceptions import GoogleAuthError

        if self.region is None:
            raise ClaudeFailure("Vertex AI is asked in a region, and none is configured: set claude.vertex_region")
        try:
            # Not left to the SDK, each of whose copies of a client would look for credentials of its own.
            credentials, project = cast("Any", google_auth).default(scopes=[_SCOPE])  # which has no types
        except GoogleAuthError:
            credentials = project = None
        if credentials is None:
            raise ClaudeFailure(f"Vertex AI cannot be asked without credentials: {self.credentials}")
        if (project := self.project or project) is None:
            raise ClaudeFailure("Vertex AI is asked for a project, and none is configured: set claude.vertex_project")
        return AsyncAnthropicVertex(region=self.region, project_id=project, credentials=credentials, **options)


def _check_extra(cloud: Cloud, module: str) -> None:
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        found = False
    if not found:
        raise ClaudeFailure(
            f"{cloud.title} needs what the extra {cloud.name!r} brings: install telemetryflow-python-mcp[{cloud.name}]"
        )
