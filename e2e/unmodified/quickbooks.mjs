// A server for QuickBooks, made as Intuit's own is: intuit-oauth refreshes, node-quickbooks calls, tokens are kept in a file.
// Neither library is told anything of Sidekey.
import { writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import OAuthClient from 'intuit-oauth';
import QuickBooks from 'node-quickbooks';
import { z } from 'zod';

const {
    QUICKBOOKS_CLIENT_ID: clientId,
    QUICKBOOKS_CLIENT_SECRET: clientSecret,
    QUICKBOOKS_REFRESH_TOKEN: firstRefreshToken,
    QUICKBOOKS_REALM_ID: ownRealm,
    QUICKBOOKS_ENVIRONMENT: environment
} = process.env;

const oauth = new OAuthClient({ clientId, clientSecret, environment, redirectUri: 'http://localhost:8000/callback' });
let refreshToken = firstRefreshToken;

async function quickbooks(realm = ownRealm) {
    const { token } = await oauth.refreshUsingToken(refreshToken);
    refreshToken = token.refresh_token;
    writeFileSync(join(homedir(), 'tokens.json'), JSON.stringify(token));
    const isSandbox = environment === 'sandbox';
    const { access_token } = token;
    return new QuickBooks(clientId, clientSecret, access_token, false, realm, isSandbox, false, null, '2.0', refreshToken);
}

const server = new McpServer({ name: 'quickbooks', version: '1.0.0' });

server.registerTool('get_company', { inputSchema: { realm: z.string().optional() } }, async ({ realm }) => {
    const company = await quickbooks(realm);
    return text(await promisify(company.getCompanyInfo).call(company, realm ?? ownRealm));
});

server.registerTool('search_customers', { inputSchema: {} }, async () => {
    const company = await quickbooks();
    return text(await promisify(company.findCustomers).call(company, [{ field: 'Active', value: true }]));
});

await server.connect(new StdioServerTransport());

function text(answer) {
    return { content: [{ type: 'text', text: JSON.stringify(answer) }] };
}
