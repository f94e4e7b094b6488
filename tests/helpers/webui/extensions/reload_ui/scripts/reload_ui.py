"""A route for the page's button "Reload UI", which has none."""

from modules import script_callbacks, shared


def add_route(_, app):
    """Asks what the button asks."""

    @app.post("/tests/reload-ui")
    def reload_ui():
        shared.state.request_restart()
        return {}


script_callbacks.on_app_started(add_route)
