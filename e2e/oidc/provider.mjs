// The OAuth server's configuration: strict PKCE, refresh tokens that can be used once, short-lived access tokens.
import Provider from 'oidc-provider';

const HOUR = 3600;

export function createProvider(issuer, { redirectUri, clientId, clientSecret, accessLifetime }) {
  return new Provider(issuer, {
    clients: [{
      client_id: clientId,
      client_secret: clientSecret,
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
    }],
    scopes: ['openid', 'offline_access', 'notes'],
    pkce: { required: () => true },
    // A used refresh token that comes again ends the whole grant; that is this package's own rule.
    rotateRefreshToken: true,
    ttl: {
      AccessToken: accessLifetime,
      AuthorizationCode: 60,
      Grant: HOUR,
      IdToken: HOUR,
      Interaction: HOUR,
      RefreshToken: HOUR,
      Session: HOUR,
    },
    features: {
      // Its own forms for signing in and consenting; any name is a user.
      devInteractions: { enabled: true },
      revocation: { enabled: true },
    },
    cookies: { keys: ['signs the cookies of a test'] },
    findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
}
