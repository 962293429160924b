// oidc-provider (npm), an authorization server nobody here wrote, on loopback: `node provider.mjs PORT AUDIENCE`. Prints a line once it listens.
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const [port, audience] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const common = {
  client_secret: "s3cret-of-a-test-s3cret-of-a-test",
  token_endpoint_auth_method: "client_secret_post",
  id_token_signed_response_alg: "ES256",
};
const people = { ana: { tenant: "acme", groups: ["leads"] }, eve: { tenant: "acme", groups: ["guests"] } };

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: "provider", alg: "ES256", use: "sig" }] },
  clients: [
    { client_id: "notes-service", ...common, grant_types: ["client_credentials"], redirect_uris: [], response_types: [] },
    { client_id: "desk", ...common, redirect_uris: [`http://127.0.0.1:${port}/callback`] },
  ],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...people[id] }) }),
  extraTokenClaims: (_, token) => people[token.accountId],
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: "calls", audience, accessTokenFormat: "jwt", accessTokenTTL: 600, jwt: { sign: { alg: "ES256" } } }),
    },
  },
});
provider.on("server_error", (_, error) => console.error(error));
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
