// Has the `fetch` of Node.js before 22.21 take its proxy from HTTPS_PROXY, HTTP_PROXY and NO_PROXY:
// NODE_OPTIONS="--import /path/to/through-proxy.mjs", with undici beside it.

import { EnvHttpProxyAgent, setGlobalDispatcher } from "undici";

setGlobalDispatcher(new EnvHttpProxyAgent());
