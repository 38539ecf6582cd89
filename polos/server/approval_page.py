"""The page on which a person answers a question of a run: a form without scripts, by a signed link."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from polos.approval_links import right_of
from polos.errors import AnswerError, ServiceUnavailableError, ValueTooLargeError
from polos.forms import ANSWERED_BY, Form, form_of
from polos.serialization import is_storable
from polos.server.errors import ApiError
from polos.server.forms import WHOLE, answer_of
from polos.server.local import refuse_strangers
from polos.server.services import Services, services_of
from polos.waits import Wait

PATH = "/approve/{execution_id}/{step_key:path}"
SUBMITTED = "Thank you, the answer is recorded."
EXPIRED = "The time to answer this is over, or the run has ended."
UNKNOWN = "There is no such question. It may have been removed since."
MOST_INPUTS = 1000
_templates = Environment(
    loader=PackageLoader("polos.server"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Page:
    """One question, for whoever has a right to see it."""

    services: Services
    project: str
    execution_id: str
    step_key: str
    action: str

    async def wait(self) -> Wait | None:
        """Return the question as it stands, None when there is none."""
        if not (is_storable(self.execution_id) and is_storable(self.step_key)):
            return None
        return await self.services.direct(self.project).find_wait(self.execution_id, self.step_key)

    async def answer(self, data: dict[str, Any]) -> None:
        """Answer; the first answer counts, and the page shows what became of it."""
        await self.services.direct(self.project).resume_run(self.execution_id, self.step_key, data)

    def shown(
        self,
        wait: Wait | None,
        *,
        values: dict[str, str] | None = None,
        problems: dict[str, str] | None = None,
    ) -> HTMLResponse:
        """Return the page of the question as it stands, or of what is wrong with what was entered."""
        if wait is None:
            return _html(404, "Question", UNKNOWN)
        form = form_of(wait.data, self.step_key)
        if not wait.is_open:
            is_answered = wait.status == "completed"
            return _html(200 if is_answered else 410, form.title, SUBMITTED if is_answered else EXPIRED, form)
        status = 400 if problems else 200
        more = {"is_open": True, "action": self.action, "values": values, "problems": problems or {}}
        return _html(status, form.title, "", form, **more)


@router.get(PATH)
async def show_question(request: Request, execution_id: str, step_key: str) -> Response:
    """Show a question: its form, or what became of it."""
    try:
        page = _admitted(request, execution_id, step_key)
        return page.shown(await page.wait())
    except (ApiError, ServiceUnavailableError) as error:
        return _refused(error)


@router.post(PATH)
async def answer_question(request: Request, execution_id: str, step_key: str) -> Response:
    """Take the answer, and show the question again."""
    try:
        page = _admitted(request, execution_id, step_key)
        wait = await page.wait()
        if wait is None or not wait.is_open:
            return page.shown(wait)
        values = await _entered(request)
        data, problems = answer_of(form_of(wait.data, step_key), values)
        if problems:
            return page.shown(wait, values=values, problems=problems)
        await page.answer(data)
        return RedirectResponse(page.action, 303, _headers(""))
    except (ApiError, ServiceUnavailableError) as error:
        return _refused(error)
    except ValueTooLargeError as error:
        return _html(413, "Too large", str(error))
    except AnswerError as error:
        return _html(400, "Answer", str(error))


def _admitted(request: Request, execution_id: str, step_key: str) -> Page:
    """Return the page for somebody with a link for it, or on the machine of a server in local mode.

    No other site can make a browser answer: it does not know the link, and its Origin is refused locally.
    """
    services = services_of(request)
    token = request.query_params.get("token")
    path = f"{request.scope.get('root_path', '')}/approve/{quote(execution_id, safe='')}"
    path = f"{path}/{quote(step_key, safe='')}"
    if token is not None:
        return Page(
            services,
            _project_of(token, services.settings.approval_secret, (execution_id, step_key)),
            execution_id,
            step_key,
            f"{path}?{urlencode({'token': token})}",
        )
    if services.settings.local_mode != "true":
        raise ApiError(401, "This page needs the whole link that was sent to you, with its token")
    refuse_strangers(request, services.settings.cors_origins)
    project = request.query_params.get("project_id")
    query = f"?{urlencode({'project_id': project})}" if project else ""
    project = project or services.settings.project_id
    return Page(services, project, execution_id, step_key, path + query)


def _project_of(token: str, secret: str, place: tuple[str, str]) -> str:
    try:
        right = right_of(token, secret)
    except ValueError as error:
        raise ApiError(401, str(error)) from error
    if (right.root_id, right.step_key) != place:
        raise ApiError(403, "This link is for another question")
    return right.project


async def _entered(request: Request) -> dict[str, str]:
    """Return the values of a submitted form; a name that is there twice counts once."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=MOST_INPUTS))
    except ValueError as error:
        raise ApiError(400, "This is not what the form of this page sends") from error


def _refused(error: ApiError | ServiceUnavailableError) -> HTMLResponse:
    if isinstance(error, ApiError):
        return _html(error.status_code, "Question", str(error.detail))
    return _html(503, "Question", "The answer cannot be taken just now. Please try again in a minute.")


def _html(status: int, title: str, message: str, form: Form | None = None, **more: Any) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    shown = {"is_open": False, "action": "", "values": None, "problems": {}, **more}
    text = _templates.get_template("approval.html").render(
        title=title,
        message=message,
        form=form,
        nonce=nonce,
        whole=WHOLE,
        answered_by=ANSWERED_BY,
        **shown,
    )
    return HTMLResponse(text, status, _headers(nonce))


def _headers(nonce: str) -> dict[str, str]:
    """Return headers by which the page runs no script, is in no frame, and tells its link to nobody."""
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'"
    return {
        "Content-Security-Policy": f"{policy}; base-uri 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-store",
    }
