"""The counter once more, by worker processes: its state is in memory that `multiprocessing` shares, behind its locks,
and in each worker's own. Python puts both into /dev/shm and into files without a name."""
import hashlib
import json
import multiprocessing
import os
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORKERS = 2


def work(jobs, answers, lock, count, chain):
    me, done = f"{os.getpid()}-{secrets.token_hex(4)}", 0
    while True:
        body = jobs.get()
        with lock:
            if body is not None:
                count.value += 1
                chain[:] = hashlib.sha256(bytes(chain[:]) + body).digest()
                done += 1
            view = {"count": count.value, "chain": bytes(chain[:]).hex(), "pod": f"{me} {done}"}
        answers.put(view)


def main():
    cookie = secrets.token_hex(8)
    lock, jobs, answers = multiprocessing.Lock(), multiprocessing.Queue(), multiprocessing.Queue()
    count, chain = multiprocessing.Value("Q", 0), multiprocessing.Array("B", 32)
    for _ in range(WORKERS):
        multiprocessing.Process(target=work, args=(jobs, answers, lock, count, chain), daemon=True).start()
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(None)

        def do_POST(self):
            self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def answer(self, body):
            with turn:                  # so that an answer is that of its own job
                jobs.put(body)
                view = answers.get()
            text = json.dumps({**view, "cookie": cookie}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words):
            pass

    ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()


if __name__ == "__main__":
    main()
