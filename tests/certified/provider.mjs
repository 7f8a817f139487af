// A certified OpenID provider for the tests: npm's oidc-provider, set up by the JSON in PROVIDER:
//   port                 where it listens, on 127.0.0.1
//   par                  "required" or "off": pushed authorization requests (RFC 9126)
//   accessTokenSeconds   how long access tokens live
//   clients              the registered clients, as OpenID Connect Dynamic Client Registration names their members
// It writes a JSON line for everything that happens, "ready" first, and never a token, code or secret.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

import { Provider } from '../node/node_modules/oidc-provider/lib/index.js';

const { port, par, accessTokenSeconds, clients } = JSON.parse(process.env.PROVIDER);
const issuer = `http://127.0.0.1:${port}`;

function say(event, details = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);
}

console.info = console.error; // where the package gives advice; our lines alone go to the other stream

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' };
}

function findAccount(_ctx, accountId) {
  const claims = () => ({ sub: accountId, email: `${accountId}@example.com`, name: `The certified ${accountId}` });
  return { accountId, claims };
}

const grants = [];

// Whoever signs in has agreed to everything: consent is no concern of these tests.
async function loadExistingGrant(ctx) {
  const { client, session } = ctx.oidc;
  const known = session.grantIdFor(client.clientId);
  const found = known && (await ctx.oidc.provider.Grant.find(known));
  if (found) return found;
  const grant = new ctx.oidc.provider.Grant({ accountId: session.accountId, clientId: client.clientId });
  grant.addOIDCScope('openid email profile');
  grants.push(await grant.save());
  return grant;
}

const provider = new Provider(issuer, {
  clients,
  findAccount,
  loadExistingGrant,
  jwks: { keys: [signingKey()] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  claims: { email: ['email'], profile: ['name'] },
  conformIdTokenClaims: true, // email and name are in UserInfo's answer alone
  pkce: { required: () => true },
  rotateRefreshToken: true, // one that is used twice ends the whole grant
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  ttl: { AccessToken: accessTokenSeconds, IdToken: 300, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
  features: {
    devInteractions: { enabled: false },
    pushedAuthorizationRequests: {
      enabled: par === 'required',
      requirePushedAuthorizationRequests: par === 'required',
    },
    revocation: { enabled: true },
    userinfo: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    backchannelLogout: { enabled: true },
  },
  // Its own dispatcher refuses addresses of this machine, where the BFF's back-channel is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
});

provider.on('grant.success', (ctx) => say('granted', { type: ctx.oidc.params.grant_type }));
provider.on('grant.error', (ctx, error) => say('grant refused', { error: error.error, detail: error.error_detail }));
provider.on('grant.revoked', () => say('grant revoked'));
provider.on('refresh_token.consumed', (token) => say('refresh token rotated', { number: number(token.jti) }));
provider.on('backchannel.success', (_ctx, client) => say('back-channel answered', { client: client.clientId }));
provider.on('backchannel.error', (_ctx, error) => say('back-channel failed', { detail: String(error) }));
provider.on('authorization.error', (_ctx, error) => say('authorization refused', { error: error.error }));
provider.on('pushed_authorization_request.error', (_ctx, error) => say('push refused', { error: error.error, detail: error.error_description }));
provider.on('end_session.success', () => say('session ended'));
provider.on('server_error', (_ctx, error) => say('provider failed', { detail: String(error.stack) }));

// An opaque token's jti is the token itself: what is written is its number instead.
const seen = [];
function number(jti) {
  if (!seen.includes(jti)) seen.push(jti);
  return seen.indexOf(jti);
}

// An administrator's way to end all grants; no client is told.
process.on('SIGUSR2', async () => {
  for (const id of grants) await (await provider.Grant.find(id))?.destroy();
  say('grants ended');
});

const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Certified provider</title>
<form method="post"><input name="login" required> <input name="password" type="password">
<button id="go">Sign in</button> <button id="cancel" name="cancel" value="yes" formnovalidate>Cancel</button></form></html>`;

async function formOf(request) {
  let text = '';
  for await (const part of request) text += part;
  return new URLSearchParams(text);
}

async function interact(request, response) {
  if (request.method === 'GET') {
    await provider.interactionDetails(request, response); // fails where none is under way
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(PAGE);
    return;
  }
  const form = await formOf(request);
  const result = form.has('cancel')
    ? { error: 'access_denied', error_description: 'cancelled' }
    : { login: { accountId: form.get('login') } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

const others = provider.callback();

createServer(async (request, response) => {
  const { pathname } = new URL(request.url, issuer);
  response.on('finish', () => say('request', { method: request.method, path: pathname, status: response.statusCode }));
  if (!pathname.startsWith('/interaction/')) {
    others(request, response);
    return;
  }
  try {
    await interact(request, response);
  } catch (error) {
    say('interaction failed', { detail: String(error) });
    response.writeHead(400).end();
  }
}).listen(port, '127.0.0.1', () => say('ready'));
