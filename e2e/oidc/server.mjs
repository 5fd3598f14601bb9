// An OAuth 2.0 server that nobody here wrote (the package oidc-provider), and a small API that it protects.
//
// Arguments: the redirect URI of the one client, its id, its secret, and the lifetime of access tokens in seconds.
// Prints its URL as one line of JSON once it listens, and runs until it is told to stop.
import http from 'node:http';

import { control } from './control.mjs';
import { Ledger } from './ledger.mjs';
import { notes } from './notes.mjs';
import { createProvider } from './provider.mjs';

const [redirectUri, clientId, clientSecret, accessLifetime] = process.argv.slice(2);

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  // The issuer's name contains the port, so the port comes first.
  const url = `http://127.0.0.1:${server.address().port}`;
  const provider = createProvider(url, { redirectUri, clientId, clientSecret, accessLifetime: Number(accessLifetime) });
  const ledger = new Ledger(provider);
  const routes = [
    ['/control/', control(provider, ledger)],
    ['/notes', notes(provider, ledger)],
    ['/', provider.callback()],
  ];
  server.on('request', (request, response) => {
    const [, answer] = routes.find(([prefix]) => request.url.startsWith(prefix));
    answer(request, response);
  });
  console.log(JSON.stringify({ url }));
});
