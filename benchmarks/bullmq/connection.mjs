// The server of the run.
import { Redis } from "ioredis";

export function connect() {
  const url = process.env.BENCH_URL;
  const options = { maxRetriesPerRequest: null };
  return url.startsWith("unix://") ? new Redis(url.slice("unix://".length), options) : new Redis(url, options);
}

export const QUEUE = "bench";
