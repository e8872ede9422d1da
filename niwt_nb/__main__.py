"What `python -m niwt_nb` and `torchrun -m niwt_nb` start: the command `niwt`."

from niwt_nb.cli import app

if __name__ == "__main__":
    app(prog_name="niwt")
