// The official TypeScript client as a small program: told what to do by lines of JSON, with its OAuth left to the SDK.
//
// The one argument is a JSON object; see harness/client_program.py for it and for the lines.
import { createInterface } from 'node:readline';
import { randomUUID } from 'node:crypto';

const options = JSON.parse(process.argv[2]);
const sdk = await load(options.sdk);
const lines = createInterface({ input: process.stdin });
// Who waits for which callback, in the order in which the addresses were handed out.
const visits = [];
const provider = oauthProvider();
let client;
let transport;

lines.on('line', async line => {
    const order = JSON.parse(line);
    if (order.callback !== undefined) {
        visits.shift()(new URL(order.callback));
        return;
    }
    try {
        say({ id: order.id, result: (await carryOut(order)) ?? null });
    } catch (error) {
        say({ id: order.id, error: String(error?.stack ?? error) });
    }
});
lines.on('close', () => process.exit(0));

async function carryOut({ what, tool, arguments: given }) {
    switch (what) {
        case 'connect':
            return connect();
        case 'disconnect':
            return transport.close();
        case 'tools':
            return (await client.listTools()).tools.map(({ name }) => name);
        case 'call':
            return client.callTool({ name: tool, arguments: given });
        case 'state':
            return { registration: provider.registration, tokens: provider.stored };
        case 'expire':
            // This SDK looks at no clock: it refreshes when a server refuses its token.
            provider.stored = { ...provider.stored, access_token: 'a-token-that-has-expired' };
            return;
    }
    throw new Error(`what is ${what}?`);
}

async function connect() {
    try {
        await open();
    } catch (error) {
        if (!isUnauthorized(error)) throw error;
        const callback = await provider.visited;
        if (callback.searchParams.get('state') !== provider.expectedState) throw new Error('the state is not ours');
        await sdk.finish(transport, callback.searchParams);
        await open();
    }
}

async function open() {
    client = new sdk.Client({ name: 'end-to-end test', version: '1' }, sdk.clientOptions);
    transport = new sdk.StreamableHTTPClientTransport(new URL(options.server_url), { authProvider: provider });
    await client.connect(transport);
}

function isUnauthorized(error) {
    return error instanceof sdk.UnauthorizedError || (error?.cause !== undefined && isUnauthorized(error.cause));
}

// What an application keeps for the SDK; in memory, as it was given.
function oauthProvider() {
    const known = options.client_id && { client_id: options.client_id, client_secret: options.client_secret };
    return {
        registration: known || undefined,
        stored: undefined,
        expectedState: undefined,
        visited: undefined,
        redirectUrl: options.redirect_uri,
        clientMetadataUrl: options.document_url ?? undefined,
        clientMetadata: { client_name: options.client_name, redirect_uris: [options.redirect_uri] },
        state() {
            this.expectedState = randomUUID();
            return this.expectedState;
        },
        clientInformation() {
            return this.registration;
        },
        saveClientInformation(information) {
            this.registration = information;
        },
        tokens() {
            return this.stored;
        },
        saveTokens(tokens) {
            this.stored = tokens;
        },
        saveCodeVerifier(verifier) {
            this.verifier = verifier;
        },
        codeVerifier() {
            return this.verifier;
        },
        discoveryState() {
            return this.discovered;
        },
        saveDiscoveryState(state) {
            this.discovered = state;
        },
        redirectToAuthorization(url) {
            this.visited = new Promise(resolve => visits.push(resolve));
            say({ visit: url.href });
        }
    };
}

async function load(generation) {
    if (generation === 2) {
        const { Client, StreamableHTTPClientTransport, UnauthorizedError } =
            await import('@modelcontextprotocol/client');
        return {
            Client,
            StreamableHTTPClientTransport,
            UnauthorizedError,
            // Look for a server of the newest revision first, as its default will be.
            clientOptions: { versionNegotiation: { mode: 'auto' } },
            finish: (transport, parameters) => transport.finishAuth(parameters)
        };
    }
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { UnauthorizedError } = await import('@modelcontextprotocol/sdk/client/auth.js');
    return {
        Client,
        StreamableHTTPClientTransport,
        UnauthorizedError,
        clientOptions: undefined,
        finish: (transport, parameters) => transport.finishAuth(parameters.get('code'))
    };
}

function say(message) {
    process.stdout.write(`${JSON.stringify(message)}\n`);
}
