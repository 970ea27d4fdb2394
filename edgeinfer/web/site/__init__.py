"""The live page and its API, where `http.web` asks for them; Starlette and uvicorn live here."""
