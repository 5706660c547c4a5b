#!/usr/bin/env python3
"""Sends a message to all devices of a user, from a backend that has an HTTP client and a JOSE library (jwcrypto), and nothing of Sealwire.

    backend.py https://relay.example KEY TOKEN USER TEXT

KEY is a file with the backend's Ed25519 key, a private JWK: it is the backend's identity, so make it once and keep it secret. TOKEN is a file
with an access token of the relay's issuer whose `cnf` names this key (`{"jkt": <its RFC 7638 thumbprint>}`). See docs/http.md.
"""

import base64
import hashlib
import json
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from jwcrypto import jwe, jwk, jws


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(key, header, claims):
    token = jws.JWS(json.dumps(claims))
    token.add_signature(key, protected=json.dumps({"alg": "EdDSA", **header}))
    return token.serialize(compact=True)


def request(relay, key, token, method, path, body=None):
    """One request, with a proof (RFC 9449) that it was made by the key that the token names."""
    proof = sign(
        key,
        {"typ": "dpop+jwt", "jwk": key.export_public(as_dict=True)},
        {
            "jti": b64u(secrets.token_bytes(16)),
            "htm": method,
            "htu": relay + path,
            "iat": int(time.time()),
            "ath": b64u(hashlib.sha256(token.encode()).digest()),
        },
    )
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body).encode()
    made = urllib.request.Request(relay + path, body, headers, method=method)
    with urllib.request.urlopen(made, timeout=60) as answer:
        return json.load(answer)


def sealed(key, token, user, device, message_id, text):
    """The message for one device: a JWT signed by the backend, in a JWE for the device (docs/protocol.md §10.1)."""
    public = key.export_public(as_dict=True)
    inside = sign(
        key,
        {"typ": "sealwire-message+jwt"},
        {
            "iss": key.thumbprint(),
            "aud": device["device"],
            "user": user,
            "iat": int(time.time()),
            "jti": message_id,
            "key": public["x"],
            "att": token,
            "type": "text/plain;charset=utf-8",
            "body": b64u(text.encode()),
        },
    )
    header = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "cty": "JWT", "kid": device["device"]}
    outside = jwe.JWE(inside, protected=json.dumps(header), algs=["ECDH-ES+A256KW", "A256GCM"])
    outside.add_recipient(jwk.JWK(**device["key"]))
    return outside.serialize(compact=True)


def main(relay, key_file, token_file, user, text):
    with open(key_file) as file:
        key = jwk.JWK.from_json(file.read())
    with open(token_file) as file:
        token = file.read().strip()
    path = f"/v1/users/{urllib.parse.quote(user, safe='')}/devices"
    devices = request(relay, key, token, "GET", path)["devices"]
    # The same id on every try: recipients show it once.
    message_id = b64u(secrets.token_bytes(16))
    messages = [
        {"device": device["device"], "jwe": sealed(key, token, user, device, message_id, text)}
        for device in devices
    ]
    body = {"user": user, "id": message_id, "messages": messages}
    print(request(relay, key, token, "POST", "/v1/messages", body)["id"])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except urllib.error.HTTPError as error:
        sys.exit(error.read().decode())
