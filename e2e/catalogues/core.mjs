// Prints the endpoints of providers of @auth/core as JSON. Arguments: their names there.
const endpoint = (declared) => (typeof declared === 'string' ? declared : declared.url);

const found = {};
for (const name of process.argv.slice(2)) {
  const { default: provider } = await import(`@auth/core/providers/${name}`);
  const { authorization, token } = provider({ clientId: 'client', clientSecret: 'secret' });
  found[name] = { authorize_url: endpoint(authorization), token_url: endpoint(token) };
}
console.log(JSON.stringify(found));
