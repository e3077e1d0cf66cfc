import js from "@eslint/js";
import globals from "globals";

export default [
  js.configs.recommended,
  {
    files: ["javascript/**/*.mjs"],
    languageOptions: {
      globals: { ...globals.browser, onUiLoaded: "readonly", onOptionsChanged: "readonly" },
    },
  },
  { files: ["tests/js/**/*.mjs"], languageOptions: { globals: globals.node } },
  {
    rules: {
      "no-var": "error",
      "prefer-const": "error",
      eqeqeq: "error",
      "no-shadow": "error",
      "max-lines": ["error", 500],
    },
  },
];
