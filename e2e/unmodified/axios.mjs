// Asks with axios, which knows of Sidekey from its environment alone. See `harness/probe.py`.
import axios from 'axios';

for (const argument of process.argv.slice(2)) {
    const [url, host] = argument.split(' ');
    const headers = { authorization: `Bearer ${process.env.TOKEN}`, ...(host && { host }) };
    const options = { headers, timeout: 20_000, responseType: 'text', validateStatus: null };
    try {
        const answer = await axios.get(url, options);
        console.log(JSON.stringify({ status: answer.status, text: answer.data }));
    } catch (error) {
        console.log(JSON.stringify({ error: [error, error.cause].join(' ') }));
    }
}
