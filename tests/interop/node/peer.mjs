// npm's jose, for tests/tests/interop.rs: one JSON request a line on standard input, one JSON answer a line on standard output.

import { createInterface } from "node:readline";
import * as jose from "jose";

const bytes = (text) => jose.base64url.decode(text);
const text = (bytes) => jose.base64url.encode(bytes);

const operations = {
  async sign({ jwk, alg, header, payload }) {
    const key = await jose.importJWK(jwk, alg);
    return { token: await new jose.CompactSign(bytes(payload)).setProtectedHeader({ alg, ...header }).sign(key) };
  },
  async verify({ jwk, alg, token }) {
    const key = await jose.importJWK(jwk, alg);
    const { payload, protectedHeader } = await jose.compactVerify(token, key, { algorithms: [alg] });
    return { payload: text(payload), header: protectedHeader };
  },
  async seal({ jwk, header, plaintext }) {
    const key = await jose.importJWK(jwk, "ECDH-ES+A256KW");
    const protectedHeader = { alg: "ECDH-ES+A256KW", enc: "A256GCM", ...header };
    return { jwe: await new jose.CompactEncrypt(bytes(plaintext)).setProtectedHeader(protectedHeader).encrypt(key) };
  },
  async open({ jwk, alg, jwe }) {
    const key = await jose.importJWK(jwk, alg);
    const options = { keyManagementAlgorithms: [alg], contentEncryptionAlgorithms: ["A256GCM"] };
    const { plaintext, protectedHeader } = await jose.compactDecrypt(jwe, key, options);
    return { plaintext: text(plaintext), header: protectedHeader };
  },
  async thumbprint({ jwk }) {
    return { thumbprint: await jose.calculateJwkThumbprint(jwk) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = await operations[request.operation](request);
  } catch (error) {
    answer = { error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
