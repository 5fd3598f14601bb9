// The protected API (RFC 6750): answers only to an access token that is valid now.
import { sha256 } from './ledger.mjs';

export function notes(provider, ledger) {
  return async (request, response) => {
    const [, token = ''] = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '') ?? [];
    const found = await provider.AccessToken.find(token);
    const accepted = found !== undefined && found.scopes.has('notes');
    ledger.called(token, accepted);
    if (accepted) {
      answer(response, 200, { account: found.accountId, token_sha256: sha256(token), notes: ['buy milk'] });
    } else {
      response.setHeader('www-authenticate', 'Bearer error="invalid_token"');
      answer(response, 401, { error: 'invalid_token' });
    }
  };
}

function answer(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}
