// The ground truth: what the OAuth server issued and refused, and which tokens its API saw.
import { createHash } from 'node:crypto';

export const sha256 = (text) => createHash('sha256').update(text).digest('hex');

export class Ledger {
  codeExchanges = 0;
  refreshes = 0;
  // What the token endpoint refused: `error: description`.
  refusals = [];
  // One for each call to the API: { token_sha256, accepted }.
  calls = [];
  // Every secret value that ever existed here, to search logs and stores for.
  secrets = new Set();
  grantIds = new Set();

  constructor(provider) {
    for (const kind of ['access_token', 'refresh_token', 'authorization_code']) {
      // These are opaque: the identifier is the value.
      provider.on(`${kind}.saved`, (token) => {
        this.secrets.add(token.jti);
        this.grantIds.add(token.grantId);
      });
    }
    provider.on('grant.success', (context) => {
      if (context.oidc.params.grant_type === 'refresh_token') this.refreshes += 1;
      else this.codeExchanges += 1;
    });
    provider.on('grant.error', (context, error) => {
      this.refusals.push(`${error.error}: ${error.error_detail ?? error.error_description}`);
    });
  }

  called(token, accepted) {
    this.calls.push({ token_sha256: sha256(token), accepted });
  }

  snapshot() {
    const { codeExchanges, refreshes, refusals, calls } = this;
    return { code_exchanges: codeExchanges, refreshes, refusals, calls };
  }
}
