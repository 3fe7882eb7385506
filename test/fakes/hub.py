"""A model hub on this machine: the part of its HTTP interface that `geo4d push` and `geo4d pull` touch."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories as {name: {file: bytes}}, one commit each; use as a context manager that gives the address."""

    def __init__(self, token='secret'):
        self.repositories, self.token, self.asked = {}, token, []

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.get(self)

            do_HEAD = do_GET

            def do_POST(self):
                hub.post(self)

            def log_message(self, *args):
                return None

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f'http://127.0.0.1:{self._server.server_address[1]}'

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name):
        return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()

    def get(self, request):
        path = unquote(urlsplit(request.path).path)
        self.asked.append(path)
        parts = path.strip('/').split('/')
        name = '/'.join(parts[2:4] if parts[:2] == ['api', 'models'] else parts[:2])
        files = self.repositories.get(name)
        if files is None:
            return answer(request, 404, {'error': 'Repository not found'}, {'X-Error-Code': 'RepoNotFound'})
        if parts[:2] != ['api', 'models']:
            content = files['/'.join(parts[4:])]
            return answer(request, 200, content, {'ETag': f'"{hashlib.sha1(content).hexdigest()}"',
                                                  'X-Repo-Commit': self.commit(name)})
        if 'tree' in parts:
            return answer(request, 200, [{'type': 'file', 'path': p, 'size': len(c), 'oid': hashlib.sha1(c).hexdigest()}
                                         for p, c in files.items()])
        return answer(request, 200, {'id': name, 'modelId': name, 'sha': self.commit(name), 'siblings': [],
                                     'private': False, 'tags': [], 'downloads': 0, 'likes': 0})

    def post(self, request):
        path = unquote(urlsplit(request.path).path)
        self.asked.append(path)
        body = request.rfile.read(int(request.headers.get('Content-Length', 0)))
        if path == '/api/validate-yaml':
            return answer(request, 200, {'errors': [], 'warnings': []})
        if request.headers.get('Authorization') != f'Bearer {self.token}':
            return answer(request, 401, {'error': 'Invalid credentials'})
        if path == '/api/repos/create':
            said = json.loads(body)
            name = '/'.join(filter(None, [said.get('organization'), said['name']]))
            self.repositories.setdefault(name, {})
            return answer(request, 200, {'url': f'http://{request.headers["Host"]}/{name}', 'name': name})
        name = '/'.join(path.strip('/').split('/')[2:4])
        if '/preupload/' in path:
            return answer(request, 200, {'files': [{'path': f['path'], 'uploadMode': 'regular', 'shouldIgnore': False}
                                                   for f in json.loads(body)['files']]})
        for line in filter(None, body.splitlines()):
            entry = json.loads(line)
            if entry['key'] == 'file':
                self.repositories[name][entry['value']['path']] = base64.b64decode(entry['value']['content'])
        sha = self.commit(name)
        return answer(request, 200, {'success': True, 'commitOid': sha,
                                     'commitUrl': f'http://{request.headers["Host"]}/{name}/commit/{sha}'})


def answer(request, status, content, headers=None):
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    request.send_response(status)
    for key, value in {'Content-Length': str(len(data)), **(headers or {})}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != 'HEAD':
        request.wfile.write(data)
