"""The settings of single parts, as the gateway's settings have them."""

from typing import TYPE_CHECKING

from contract.exploration import ExploreSettings
from contract.lists import ListSettings
from serving.decision.limits import DecisionSettings
from serving.decision.reason_texts import ENGLISH, read_texts
from serving.inference.guard import GuardLimits
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.state.review_webhook import WebhookPlace
    from serving.state.voucherify import VoucherifyPlace


def decision_settings(settings: Settings) -> DecisionSettings:
    """Raises UserError for texts that can not be read."""
    return DecisionSettings(
        max_full=min(settings.max_full_decisions, settings.max_total_decisions),
        max_total=settings.max_total_decisions,
        query_vectors=settings.query_vectors,
        feedback_days=settings.feedback_days,
        delicate=tuple(word.lower() for word in settings.delicate_categories),
        texts=ENGLISH if settings.texts is None else read_texts(settings.texts),
        lists=ListSettings(
            diversity=settings.list_diversity,
            category_cap=settings.list_category_cap,
            margin=settings.list_margin,
            most_loss=settings.list_most_loss,
        ),
        explore=ExploreSettings(
            settings.explore_share, settings.explore_slots, settings.explore_most_loss
        ),
    )


def guard_limits(settings: Settings) -> GuardLimits:
    return GuardLimits(
        window_s=settings.guard_window_seconds,
        min_decisions=settings.guard_min_decisions,
        watch_s=settings.guard_watch_seconds,
        error_share=settings.guard_error_share,
        p99_ratio=settings.guard_p99_ratio,
        full_share=settings.guard_full_share,
        score_psi=settings.guard_score_psi,
    )


def webhook_place(settings: Settings) -> "WebhookPlace | None":
    """Raises UserError."""
    if settings.review_webhook_url is None:
        return None
    from serving.state.review_webhook import WebhookPlace

    return WebhookPlace.of(settings.review_webhook_url, settings.review_webhook_secret)


def voucherify_place(settings: Settings) -> "VoucherifyPlace | None":
    """Raises UserError."""
    if settings.voucherify_url is None:
        return None
    from serving.state.voucherify import VoucherifyPlace

    return VoucherifyPlace.of(
        settings.voucherify_url, settings.voucherify_app_id, settings.voucherify_app_token
    )
