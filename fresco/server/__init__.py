"""Jobs, videos and the API. Knows neither a WebUI nor gradio."""
