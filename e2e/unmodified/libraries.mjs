// A server that calls companies by the libraries that they publish. None of them is told anything of Sidekey: each has its own
// hosts built in, and where it wants a token it gets a word.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { SpotifyApi } from '@spotify/web-api-ts-sdk';
import { TodoistApi } from '@doist/todoist-sdk';
import { z } from 'zod';

const PLACEHOLDER = 'none';

const spotify = SpotifyApi.withAccessToken(PLACEHOLDER, { access_token: PLACEHOLDER, token_type: 'Bearer', expires_in: 3600 });
const todoist = new TodoistApi(PLACEHOLDER);

const server = new McpServer({ name: 'libraries', version: '1.0.0' });

tool('spotify_profile', {}, () => spotify.currentUser.profile());
tool('spotify_rename_playlist', { playlist: z.string(), name: z.string() }, async ({ playlist, name }) => {
    await spotify.playlists.changePlaylistDetails(playlist, { name });
    return 'renamed';
});
tool('todoist_projects', {}, () => todoist.getProjects());
tool('todoist_close_task', { task: z.string() }, ({ task }) => todoist.closeTask(task));

await server.connect(new StdioServerTransport());

function tool(name, inputSchema, call) {
    server.registerTool(name, { inputSchema }, async (input) => {
        return { content: [{ type: 'text', text: JSON.stringify(await call(input)) }] };
    });
}
