// The Python that has the library, for comparisons with it.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const python = process.env.PYTHON ?? [join(root, ".venv/bin/python"), "python3"].find((path) => !path.includes("/") || existsSync(path));
