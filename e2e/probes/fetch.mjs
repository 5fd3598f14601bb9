// Asks with the fetch that Node.js brings along, which knows of Sidekey from its environment alone. See `harness/probe.py`.
for (const argument of process.argv.slice(2)) {
    const [url, host] = argument.split(' ');
    const headers = { authorization: `Bearer ${process.env.TOKEN}`, ...(host && { host }) };
    try {
        const answer = await fetch(url, { headers, signal: AbortSignal.timeout(20_000) });
        console.log(JSON.stringify({ status: answer.status, text: await answer.text() }));
    } catch (error) {
        console.log(JSON.stringify({ error: [error, error.cause].join(' ') }));
    }
}
