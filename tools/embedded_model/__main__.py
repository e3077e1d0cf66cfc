"""`python -m tools.embedded_model --work FOLDER`: the whole training, from nothing to weights and table."""

from tools.embedded_model.train import main

if __name__ == "__main__":
    main()
