// How a test looks into the server and steers it.

export function control(provider, ledger) {
  const actions = {
    'GET /control/ledger': () => ledger.snapshot(),
    'GET /control/secrets': () => [...ledger.secrets],
    'POST /control/expire': () => expireAccessTokens(provider, ledger),
    'POST /control/revoke': () => revokeGrants(provider, ledger),
  };
  return async (request, response) => {
    const action = actions[`${request.method} ${request.url}`];
    const body = action ? await action() : { error: 'no such control endpoint' };
    response.writeHead(action ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body ?? {}));
  };
}

// Access tokens stop working earlier than announced; their grants live on.
async function expireAccessTokens(provider, ledger) {
  await Promise.all([...ledger.secrets].map(async (value) => (await provider.AccessToken.find(value))?.destroy()));
}

// The user takes all consent back.
async function revokeGrants(provider, ledger) {
  await Promise.all([...ledger.grantIds].flatMap((id) => [
    provider.AccessToken.revokeByGrantId(id),
    provider.RefreshToken.revokeByGrantId(id),
    provider.Grant.adapter.destroy(id),
  ]));
}
