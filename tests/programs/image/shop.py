"""A Flask application for gunicorn: each worker process has a counter of its own."""
import os
import secrets

from flask import Flask, jsonify

app = Flask(__name__)
state = {"count": 0, "cookie": ""}


def view():
    state["cookie"] = state["cookie"] or f"{os.getpid()}-{secrets.token_hex(4)}"     # after the fork
    return jsonify(state)


@app.post("/add")
def add():
    state["count"] += 1
    return view()


@app.get("/state")
@app.get("/healthz")
def show():
    return view()
