"""The OntologyDownload service: a catalogue of ontologies, and their files, over HTTP.

Python's standard library only. A SQLite file, made from catalogue.sql at the start, stands in for
the DuckDB catalogue of the original; its metrics keep the original's names.
"""

import json
import os
import random
import re
import signal
import sqlite3
import sys
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ.get("SWITCHBACK_VERSION", "v0")
PORT = int(os.environ.get("PORT", "8000"))
CATALOGUE = os.environ.get("CATALOGUE", "catalogue.sqlite")
SEED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "catalogue.sql")
# Requests on their way may take this long after SIGTERM; the data plane has ended them by then.
STOP_SECONDS_MAX = 5.0


class Faults:
    """What is wrong with this version, for trying rollbacks out: FAULTS="v3: errors=5%; v4: ..."."""

    def __init__(self, text):
        wrong = dict(part.split(":", 1) for part in text.split(";") if ":" in part)
        wrong = {version.strip(): words.split() for version, words in wrong.items()}
        named = dict(word.partition("=")[::2] for word in wrong.get(VERSION, []))
        self.never_ready = "not-ready" in named
        self.error_share = float(named.get("errors", "0%").rstrip("%")) / 100
        self.delay_seconds = float(named.get("delay", "0ms").removesuffix("ms")) / 1000


class Histogram:
    """Durations in seconds, counted below each of these bounds."""

    BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

    def __init__(self):
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.total = 0.0

    def record(self, seconds):
        self.counts[sum(seconds > bound for bound in self.BOUNDS)] += 1
        self.total += seconds

    def lines(self, name, labels):
        seen = 0
        for bound, count in zip((*self.BOUNDS, "+Inf"), self.counts):
            seen += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {seen}'
        yield f"{name}_sum{{{labels}}} {self.total:.6f}"
        yield f"{name}_count{{{labels}}} {seen}"


class Metrics:
    """What /metrics shows."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = {}
        self.durations = {}
        self.queries = {}

    def request(self, method, path, status, seconds):
        labels = f'method="{method}",path="{path}",status="{status}"'
        with self.lock:
            self.requests[labels] = self.requests.get(labels, 0) + 1
            self.durations.setdefault(f'path="{path}"', Histogram()).record(seconds)

    def query(self, name, seconds):
        with self.lock:
            self.queries.setdefault(f'query="{name}"', Histogram()).record(seconds)

    def text(self):
        with self.lock:
            lines = ["# TYPE http_requests_total counter"]
            lines += (f"http_requests_total{{{k}}} {n}" for k, n in self.requests.items())
            for name, family in (
                ("http_request_duration_seconds", self.durations),
                ("duckdb_query_duration_seconds", self.queries),
            ):
                lines.append(f"# TYPE {name} histogram")
                for labels, histogram in family.items():
                    lines += histogram.lines(name, labels)
        return "\n".join(lines) + "\n"


class Catalogue:
    """The ontologies. One read-only connection per query: the file may go away at any time."""

    def __init__(self, path, metrics):
        self.path = path
        self.metrics = metrics

    def build(self):
        """Makes the file anew; it is either complete or not there."""
        half = self.path + ".new"
        if os.path.exists(half):
            os.remove(half)
        with open(SEED, encoding="utf-8") as seed, sqlite3.connect(half) as database:
            database.executescript(seed.read())
        database.close()
        os.replace(half, self.path)

    def rows(self, name, sql, *values):
        started = time.monotonic()
        database = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=1)
        try:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql, values)]
        finally:
            database.close()
            self.metrics.query(name, time.monotonic() - started)

    def count(self):
        return self.rows("count", "SELECT count(*) AS n FROM ontology")[0]["n"]

    def all(self):
        return self.rows("list", "SELECT id, title, license FROM ontology ORDER BY id")

    def find(self, ontology):
        found = self.rows("find", "SELECT * FROM ontology WHERE id = ?", ontology)
        return found[0] if found else None


METRICS = Metrics()
STORE = Catalogue(CATALOGUE, METRICS)
FAULTS = Faults(os.environ.get("FAULTS", ""))
STOPPING = threading.Event()


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def json_answer(status, value):
    return status, "application/json", json.dumps(value).encode() + b"\n"


def health(_match):
    """The process answers; nothing else is asked."""
    return json_answer(200, {"status": "healthy", "timestamp": now(), "version": VERSION})


def ready(_match):
    """It can do its work: the catalogue is there, and it is not about to stop."""
    checks = {"stopping": STOPPING.is_set()}
    try:
        checks["catalogue"] = f"{STORE.count()} ontologies"
        usable = not STOPPING.is_set() and not FAULTS.never_ready
    except sqlite3.Error as error:
        checks["catalogue"] = str(error)
        usable = False
    if FAULTS.never_ready:
        checks["fault"] = "this version is never ready"
    word = "ready" if usable else "not ready"
    return json_answer(200 if usable else 503, {"status": word, "checks": checks})


def metrics(_match):
    return 200, "text/plain; version=0.0.4", METRICS.text().encode()


def version(_match):
    return json_answer(200, {"service": "ontology-download", "version": VERSION})


def ontologies(_match):
    return json_answer(200, {"version": VERSION, "ontologies": STORE.all()})


def ontology(match):
    found = STORE.find(match["id"])
    if found is None:
        return json_answer(404, {"error": f"no ontology {match['id']}"})
    return json_answer(200, {key: found[key] for key in ("id", "title", "license")})


def download(match):
    found = STORE.find(match["id"])
    if found is None:
        return json_answer(404, {"error": f"no ontology {match['id']}"})
    return 200, "text/plain; charset=utf-8", found["content"].encode()


# Path, the name it has in the metrics, what answers, and whether faults show there.
ROUTES = [
    (re.compile(r"/health"), "/health", health, False),
    (re.compile(r"/ready"), "/ready", ready, False),
    (re.compile(r"/metrics"), "/metrics", metrics, False),
    (re.compile(r"/api/version"), "/api/version", version, False),
    (re.compile(r"/api/ontologies"), "/api/ontologies", ontologies, True),
    (re.compile(r"/api/ontologies/(?P<id>[a-z]+)"), "/api/ontologies/ID", ontology, True),
    (
        re.compile(r"/api/ontologies/(?P<id>[a-z]+)/download"),
        "/api/ontologies/ID/download",
        download,
        True,
    ),
]


def answer(path):
    """Status, content type and body for a path, and the path's name in the metrics."""
    for pattern, name, handle, faulty in ROUTES:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if faulty and FAULTS.delay_seconds:
            time.sleep(FAULTS.delay_seconds)
        if faulty and random.random() < FAULTS.error_share:
            return name, json_answer(500, {"error": f"{VERSION} is broken"})
        try:
            return name, handle(match)
        except sqlite3.Error as error:
            return name, json_answer(503, {"error": f"catalogue: {error}"})
    return "other", json_answer(404, {"error": "no such page"})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ontology-download"
    # A resting connection is kept longer than the data plane rests one.
    timeout = 75
    # Head and body leave in one packet.
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True

    def do_GET(self):
        self.server.entered(self)
        try:
            self.respond()
        finally:
            self.server.left(self)

    do_HEAD = do_GET

    def respond(self):
        started = time.monotonic()
        name, (status, content_type, body) = answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        if STOPPING.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        METRICS.request(self.command, name, status, time.monotonic() - started)

    def log_message(self, *_arguments):
        """Requests are counted in the metrics; the log is for what matters."""


class Server(ThreadingHTTPServer):
    """A thread per connection, and a count of the requests that are being answered."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address):
        self.busy = set()
        self.changed = threading.Condition()
        super().__init__(address, Handler)

    def entered(self, request):
        with self.changed:
            self.busy.add(request)

    def left(self, request):
        with self.changed:
            self.busy.discard(request)
            self.changed.notify_all()

    def handle_error(self, request, client_address):
        """A client that went away is none of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def drain(self):
        """Waits for the requests that are being answered."""
        with self.changed:
            self.changed.wait_for(lambda: not self.busy, STOP_SECONDS_MAX)


def say(text):
    print(f"{now()} {VERSION}: {text}", flush=True)


def main():
    STORE.build()
    server = Server(("127.0.0.1", PORT))

    def stop(_signal, _frame):
        STOPPING.set()
        # shutdown() waits for serve_forever(), which runs in this very thread.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    say(f"answering on port {PORT}, catalogue of {STORE.count()} ontologies")
    server.serve_forever(poll_interval=0.1)
    say("stopping: no new connections, finishing what was begun")
    server.server_close()
    server.drain()
    say("stopped")


if __name__ == "__main__":
    main()
