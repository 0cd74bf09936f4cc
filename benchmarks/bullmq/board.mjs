// The board of bench/board.py, for Node: without a memory map, so each mark is one pwrite into the same file.
import fs from "node:fs";

const HEADER = 4096;
const GATE_AT = 8;
const READY_AT = 1024;

const file = fs.openSync(process.env.BENCH_BOARD, "r+");
const capacity = Number(process.env.BENCH_CAPACITY);
const worker = Number(process.env.BENCH_WORKER);
const eight = Buffer.alloc(8);
const sixteen = Buffer.alloc(16);
const ran = new Uint8Array(capacity);

const marksAt = (index) => HEADER + 16 * index;

function write(value, position) {
  eight.writeBigInt64LE(value);
  fs.writeSync(file, eight, 0, 8, position);
}

export function push(index) {
  write(process.hrtime.bigint(), HEADER + 16 * capacity + 8 * index);
}

export function begin(index) {
  write(process.hrtime.bigint(), marksAt(index));
}

// Who ran the task: this worker, plus 128 if it has run it before.
function mark(index) {
  const value = ran[index] ? worker | 128 : worker;
  ran[index] = 1;
  return BigInt(value);
}

export function end(index) {
  write(mark(index), marksAt(index) + 8);
}

// Both marks of a task that does nothing, in one write.
export function beginAndEnd(index) {
  sixteen.writeBigInt64LE(process.hrtime.bigint(), 0);
  sixteen.writeBigInt64LE(mark(index), 8);
  fs.writeSync(file, sixteen, 0, 16, marksAt(index));
}

export function hasBegun(index) {
  fs.readSync(file, eight, 0, 8, marksAt(index));
  return eight.readBigInt64LE() !== 0n;
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function waitAtGate() {
  const one = Buffer.from([1]);
  fs.writeSync(file, one, 0, 1, READY_AT + worker);
  for (;;) {
    fs.readSync(file, one, 0, 1, GATE_AT);
    if (one[0] !== 0) return;
    await pause(1);
  }
}
