"""Equivalence of lists of calls. Invariant: decided from the texts alone, without the wheel; calls change places only where no
other call can see the difference.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from cotbench.envs.bfcl import calls

_FUNCTIONS = {
    "GorillaFileSystem": "cat cd cp diff du echo find grep ls mkdir mv pwd rm rmdir sort tail touch wc",
    "MessageAPI": (
        "add_contact delete_message get_message_stats get_user_id list_users message_get_login_status message_login "
        "search_messages send_message view_messages_sent"
    ),
    "TwitterAPI": (
        "authenticate_twitter comment follow_user get_tweet get_tweet_comments get_user_stats get_user_tweets "
        "list_all_following mention post_tweet posting_get_login_status retweet search_tweets unfollow_user"
    ),
    "TicketAPI": (
        "close_ticket create_ticket edit_ticket get_ticket get_user_tickets logout resolve_ticket ticket_get_login_status "
        "ticket_login"
    ),
    "TradingBot": (
        "add_to_watchlist cancel_order filter_stocks_by_price fund_account get_account_info get_available_stocks "
        "get_current_time get_order_details get_order_history get_stock_info get_symbol_by_name get_transaction_history "
        "get_watchlist notify_price_change place_order remove_stock_from_watchlist trading_get_login_status trading_login "
        "trading_logout withdraw_funds"
    ),
    "TravelAPI": (
        "authenticate_travel book_flight cancel_booking compute_exchange_rate contact_customer_support get_all_credit_cards "
        "get_booking_history get_budget_fiscal_year get_credit_card_balance get_flight_cost get_nearest_airport_by_city "
        "list_all_airports purchase_insurance register_credit_card retrieve_invoice set_budget_limit travel_get_login_status "
        "verify_traveler_information"
    ),
    "VehicleControlAPI": (
        "activateParkingBrake adjustClimateControl check_tire_pressure displayCarStatus display_log estimate_distance "
        "estimate_drive_feasibility_by_mileage fillFuelTank find_nearest_tire_shop gallon_to_liter get_current_speed "
        "get_outside_temperature_from_google get_outside_temperature_from_weather_com get_zipcode_based_on_city "
        "liter_to_gallon lockDoors pressBrakePedal releaseBrakePedal setCruiseControl setHeadlights set_navigation startEngine"
    ),
}
"""Service -> the functions that read or change its state; a test compares them with the wheel."""
_SERVICES = {name: service for service, names in _FUNCTIONS.items() for name in names.split()}


def meaning(action: str) -> Hashable:
    """Return a key that is equal for canonical lists of calls with the same effect.

    The order of a call's arguments does not matter. Calls to one service are kept in their order; those to other services do
    not see them, and functions without a state (arithmetic, whatever a single-turn task describes) see none. Where a call may
    stand inside an argument, all keep their places.

    Args:
        action: a canonical action.
    """
    try:
        answer = calls.read(action)
        nested = any(text.count("(") > 1 for text in answer.texts())
        with calls.unreadable_otherwise():
            each = [(name, _unordered(arguments)) for call in answer.calls for name, arguments in call.items()]
    except calls.UnreadableError:
        return action
    if nested:
        return tuple(each)
    by_service: dict[str, list[tuple[str, str]]] = {}
    for name, arguments in each:
        by_service.setdefault(_SERVICES.get(name.rpartition(".")[2], ""), []).append((name, arguments))
    free = sorted(by_service.pop("", []))
    return (tuple(free), *(tuple(by_service[service]) for service in sorted(by_service)))


def _unordered(arguments: dict[Any, Any]) -> str:
    return repr(sorted((str(name), repr(value)) for name, value in arguments.items()))
