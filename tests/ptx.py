"""Kernels in PTX, run on the CPU and counted: what NVRTC compiles, instruction by instruction, as C++.

`translated` makes a function of C++ of each kernel. Beside each instruction stands what it costs in time
(``emulator/ptx_on_cpu.h``), and at the head of each stretch of code without a branch that it was entered.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

#: Types of C++ of the registers, by the letters of their names.
REGISTERS = {"p": "bool", "rs": "uint16_t", "r": "uint32_t", "rd": "uint64_t", "f": "float", "fd": "double"}
_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
_INFIX = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^"}
_COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@dataclass
class Stretch:
    """Instructions that are executed together, by kind."""

    issued: float = 0.0
    kinds: Counter = field(default_factory=Counter)


@dataclass
class Kernel:
    """A kernel: its text in C++, and what its stretches issue."""

    name: str
    parameters: list[str]
    text: str
    stretches: list[Stretch]
    n_accesses: int
    barriers: bool


def ctype(kind: str) -> str:
    """Return the type of C++ of a type of PTX: ``s32``, ``b64``, ``f32``."""
    letter, size = kind[0], kind[1:]
    if kind == "pred":
        return "bool"
    if letter == "f":
        return "float" if size == "32" else "double"
    return f"{'' if letter == 's' else 'u'}int{size}_t"


def issued(root: str, modifiers: list[str]) -> tuple[float, str, str]:
    """Return machine instructions of one of PTX, its kind, and the name of its latency."""
    kind = modifiers[-1] if modifiers else ""
    wide = kind.endswith("64")
    if root in ("bra", "ret", "bar", "call"):
        return 1, root, "NO_LATENCY"
    if root in ("mov", "cvta", "ld_param"):
        return 0, "moved", "NO_LATENCY"
    if root in ("ld", "st", "atom"):
        return 1, root, "NO_LATENCY"
    if kind == "f64":
        n, latency = {"div": (18, "DIVIDE_64"), "sqrt": (16, "DIVIDE_64"), "rcp": (10, "DIVIDE_64")}.get(
            root, (1, "DOUBLE")
        )
        return n, "double", latency
    if root == "cvt":
        double = "f64" in modifiers
        integers = all(m[0] in "su" for m in modifiers if re.fullmatch(r"[suf]\d+", m))
        return (
            1,
            "double" if double else "integer" if integers else "special",
            ("DOUBLE" if double else "ALU" if integers else "SPECIAL"),
        )
    if root in ("div", "rem") and kind[0] in "su":
        return (70, "integer", "DIVIDE_64") if wide else (18, "integer", "DIVIDE")
    if root in ("div", "sqrt", "rcp"):
        return 9, "single", "DIVIDE"
    if root in ("ex2", "lg2"):
        return 1, "special", "SPECIAL"
    if kind.startswith("f"):
        return 1, "single", "ALU"
    if root in ("mul", "mad") and wide and "wide" not in modifiers:
        return 4, "integer", "WIDE"
    return (2 if wide else 1), "integer", "ALU"


class _Translator:
    """Translates the body of one kernel."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stretches = [Stretch()]
        self.n_accesses = 0
        self.begun = True
        self.barriers = False
        self.lines.append("++entered[0];")

    def stretch(self) -> None:
        """Begin a stretch."""
        if not self.begun:
            self.close()
            self.lines.append(f"++entered[{len(self.stretches)}];")
            self.stretches.append(Stretch())
            self.begun = True

    def close(self) -> None:
        """End a stretch: all its instructions have been issued, and their operands waited for."""
        self.lines.append(f"now = later(now + {self.stretches[-1].issued:.1f}f * ptx::issue, started);")

    @staticmethod
    def operand(text: str, kind: str = "") -> str:
        """Return an operand in C++, as a value of a type."""
        text = text.strip()
        if match := re.fullmatch(r"0([fd])([0-9A-F]+)", text):
            size, type_ = ("32", "float") if match[1] == "f" else ("64", "double")
            return f"ptx::bits<{type_}>(uint{size}_t(0x{match[2]}ull))"
        special = {"%tid.x": "threadIdx.x", "%ntid.x": "blockDim.x", "%ctaid.x": "blockIdx.x"}
        if text in special:
            return special[text]
        if text == "shared":
            return "(uint64_t)emulator::shared.data()"
        if re.fullmatch(r"__\w+", text):  # a table
            return f"(uint64_t){text}"
        value = text.replace("%", "")
        if kind and kind[0] in "sub" and kind != "pred":
            return f"({ctype(kind)}){value}"
        return value

    @staticmethod
    def ready(*operands: str) -> str:
        """Return when operands are ready."""
        registers = [name for text in operands for name in re.findall(r"%([a-z]+\d*)\b(?!\.)", text)]
        out = "now"
        for name in dict.fromkeys(r for r in registers if r not in ("tid", "ntid", "ctaid")):
            out = f"later({out}, t_{name})"
        return out

    def instruction(self, text: str) -> None:
        """Translate one instruction."""
        guard = ""
        if match := re.match(r"@(!?)%(\w+)\s+(.*)", text, re.DOTALL):
            guard, text = f"{match[1]}{match[2]}", match[3]
        opcode, _, rest = text.partition(" ")
        root, *modifiers = opcode.split(".")
        operands = [o.strip() for o in re.split(r",(?![^{]*\})", rest.strip())] if rest.strip() else []
        if root == "bra":
            self.branch(guard, operands[0])
            return
        assert not guard, text
        if root == "ld" and "param" in modifiers:
            root = "ld_param"
        n, kind, latency = issued(root, modifiers)
        if root == "bar" and "warp" not in modifiers:
            kind = "barrier"
        self.stretches[-1].issued += n
        self.stretches[-1].kinds[kind] += n
        if root in ("ld", "st", "atom", "ld_param"):
            self.memory(root, modifiers, operands)
        elif root == "bar":
            self.close()
            self.stretches[-1].issued, before = 0.0, self.stretches[-1].issued
            line = len(self.lines) + 1
            self.lines.append(f"ptx::wait(now, {-line if 'warp' in modifiers else line}); started = now;")
            self.stretches[-1].issued = before
            self.barriers = True
            self.begun = False
            self.lines.append(f"++entered[{len(self.stretches)}];")
            self.stretches.append(Stretch())
        elif root == "ret":
            self.close()
            self.lines.append("ptx::clocks[threadIdx.x] = now; return;")
        elif root == "call":
            self.lines.append("abort();")
        else:
            self.operation(root, modifiers, operands, latency)
        self.begun = root == "bar"

    def branch(self, guard: str, label: str) -> None:
        """Translate a branch, which waits for its predicate."""
        self.stretches[-1].issued += 1
        self.stretches[-1].kinds["bra"] += 1
        if guard:
            self.lines.append(f"started = later(started, t_{guard.lstrip('!')});")
        self.close()
        target = f"goto {label.replace('$', '')};"
        self.lines.append(f"if ({guard}) {target}" if guard else target)
        self.begun = False
        # What follows is another stretch.
        self.lines.append(f"++entered[{len(self.stretches)}];")
        self.stretches.append(Stretch())
        self.begun = True

    def memory(self, root: str, modifiers: list[str], operands: list[str]) -> None:
        """Translate what goes to memory."""
        kind = modifiers[-1]
        at = next(o for o in operands if o.startswith("["))
        place, _, offset = at.strip("[]").partition("+")
        if root == "ld_param":
            name = operands[0].strip("%")
            value = f"({ctype(kind)}){place}" if kind[0] in "su" else f"ptx::bits<decltype({name})>({place})"
            self.lines.append(f"{name} = {value}; t_{name} = now;")
            return
        address = f"({self.operand(place)} + ({offset or 0}))"
        values = next((o for o in operands if not o.startswith("[")), "").strip("{}").split(",")
        values = [v.strip() for v in values]
        begin = f"const Time begin = {self.ready(place, *([] if root == 'ld' else operands))};"
        self.lines.append(f"{{ {begin} started = later(started, begin);")
        access, self.n_accesses = self.n_accesses, self.n_accesses + 1
        reads = str(root != "st").lower()
        self.lines.append(f"const Time cost = ptx::touch({access}, {address}, {reads});")
        size, type_ = _SIZES[kind[1:]], ctype(kind)
        if root == "atom":
            function = {"add": "atomicAdd", "max": "atomicMax", "or": "atomicOr"}[modifiers[-2]]
            name, value = operands[0].strip("%"), self.operand(operands[2], kind)
            self.lines.append(f"{name} = {function}(ptx::at<{type_}>{address}, {value});")
            self.lines.append(f"t_{name} = begin + ptx::latency[ATOMIC];")
        else:
            for i, value in enumerate(values):
                cell = f"*ptx::at<{type_}>({address} + {i * size})"
                if root == "ld":
                    name = value.strip("%")
                    self.lines.append(f"{name} = {cell}; t_{name} = begin + cost;")
                else:
                    self.lines.append(f"{cell} = {self.operand(value, kind if kind[0] in 'sub' else '')};")
        self.lines.append("}")

    def operation(self, root: str, modifiers: list[str], operands: list[str], latency: str) -> None:
        """Translate what computes a register."""
        kind = modifiers[-1]
        target, *sources = operands
        at = self.ready(*sources)
        if "{" in target:  # one of 64 bits taken apart
            halves = [h.strip().strip("%") for h in target.strip("{}").split(",")]
            whole = f"ptx::bits<uint64_t>({self.operand(sources[0])})"
            for i, half in enumerate(halves):
                self.lines.append(f"{half} = (uint32_t)({whole} >> {32 * i}); t_{half} = {at};")
            return
        name = target.strip("%")
        if root == "mov":
            if "{" in sources[0]:
                low, high = (self.operand(s) for s in sources[0].strip("{}").split(","))
                value = f"((uint64_t){high} << 32 | {low})"
            else:
                value = self.operand(sources[0])
            value = (
                f"ptx::bits<decltype({name})>((decltype({name})){value})"
                if kind[0] in "su"
                else (f"ptx::bits<decltype({name})>({value})" if kind[0] == "b" else value)
            )
        else:
            value = self.value(root, modifiers, [self.operand(s, kind) for s in sources], sources)
        self.lines.append(f"{{ const Time begin = {at}; started = later(started, begin);")
        self.lines.append(f"{name} = {value}; t_{name} = begin + ptx::latency[{latency}]; }}")

    def value(self, root: str, modifiers: list[str], x: list[str], sources: list[str]) -> str:
        """Return what an operation computes."""
        kind, type_ = modifiers[-1], ctype(modifiers[-1])
        flushed = "ftz" in modifiers and kind == "f32"
        if flushed and root not in ("cvt", "setp"):
            x = [f"ptx::ftz({v})" for v in x]
        if root in ("mul", "mad") and "wide" in modifiers:
            long = type_.replace("32", "64")
            product = f"({long}){x[0]} * ({long}){x[1]}"
            return product if root == "mul" else f"{product} + ({long}){self.operand(sources[2], kind[0] + '64')}"
        if root == "mul" and "hi" in modifiers:
            return f"(uint32_t)((uint64_t){x[0]} * {x[1]} >> 32)"
        out = {
            "mul": lambda: f"{x[0]} * {x[1]}",
            "mad": lambda: f"{x[0]} * {x[1]} + {x[2]}",
            "fma": lambda: f"ptx::fma_down({', '.join(x)})" if "rm" in modifiers else f"std::fma({', '.join(x)})",
            "div": lambda: f"{x[0]} / {x[1]}",
            "rem": lambda: f"{x[0]} % {x[1]}",
            "min": lambda: f"std::min({x[0]}, {x[1]})" if kind[0] != "f" else f"std::fmin({x[0]}, {x[1]})",
            "max": lambda: f"std::max({x[0]}, {x[1]})" if kind[0] != "f" else f"std::fmax({x[0]}, {x[1]})",
            "abs": lambda: f"std::fabs({x[0]})",
            "neg": lambda: f"-{x[0]}",
            "not": lambda: f"!{x[0]}" if kind == "pred" else f"~{x[0]}",
            "shl": lambda: f"{x[0]} << {self.operand(sources[1], 'u32')}",
            "shr": lambda: f"{x[0]} >> {self.operand(sources[1], 'u32')}",
            "sqrt": lambda: f"std::sqrt({x[0]})",
            "rcp": lambda: f"1 / {x[0]}",
            "ex2": lambda: f"std::exp2({x[0]})",
            "selp": lambda: f"{self.operand(sources[2])} ? {x[0]} : {x[1]}",
            "cvta": lambda: x[0],
            "clz": lambda: f"__builtin_clzll({x[0]})",
            "setp": lambda: self.compared(modifiers, x),
            "cvt": lambda: self.converted(modifiers, sources[0]),
        }
        value = f"{x[0]} {_INFIX[root]} {x[1]}" if root in _INFIX else out[root]()
        return f"ptx::ftz({value})" if flushed and root not in ("setp", "cvt") else value

    @staticmethod
    def compared(modifiers: list[str], x: list[str]) -> str:
        how = modifiers[0]
        if how == "num":
            return f"{x[0]} == {x[0]} && {x[1]} == {x[1]}"
        if how.endswith("u"):  # or one of them is no number
            opposite = {"equ": "!=", "neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}[how]
            return f"!({x[0]} {opposite} {x[1]})" if how != "neu" else f"!({x[0]} == {x[1]})"
        return f"{x[0]} {_COMPARED[how]} {x[1]}"

    def converted(self, modifiers: list[str], source: str) -> str:
        to, from_ = modifiers[-2:]
        value, type_ = self.operand(source, from_), ctype(to)
        if to[0] in "su" and from_[0] == "f":
            value = f"std::nearbyint({value})" if "rni" in modifiers else value
            return f"ptx::truncated<{type_}>({value})"
        if "sat" in modifiers:
            return f"ptx::saturated({value})"
        value = f"({type_}){value}"
        return f"ptx::ftz({value})" if "ftz" in modifiers and to == "f32" else value


def translated(ptx: str) -> list[Kernel]:
    """Translate all kernels of a module."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    kernels = []
    for name, parameters, body in re.findall(r"\.entry (\w+)\((.*?)\)\s*\{(.*?)\n\}", ptx, re.DOTALL):
        types = [ctype(kind) for kind in re.findall(r"\.param \.(\w+)", parameters)]
        translator = _Translator()
        declared: list[str] = []
        for letters, last in re.findall(r"\.reg \.\w+\s+%([a-z]+)<(\d+)>", body):
            for i in range(1, int(last)):
                declared.append(f"{REGISTERS[letters]} {letters}{i} = 0; Time t_{letters}{i} = nothing;")
        body = re.sub(r"\.reg \.\w+\s+%[a-z]+<\d+>;", "", body)
        for line in re.findall(r"[{}](?=\s*\n)|\$\w+:|[^;{}:]*?(?:\{[^}\n]*\}[^;{}]*)*;", body):
            line = " ".join(line.split())
            if line in ("{", "}"):
                translator.lines.append(line)
            elif match := re.fullmatch(r"\$(\w+):", line):
                translator.stretch()
                # A label is entered from elsewhere, too: what counts comes after it.
                entered = translator.lines.pop() if translator.lines[-1].startswith("++entered") else None
                translator.lines.append(f"{match[1]}: started = now;")
                if entered:
                    translator.lines.append(entered)
            elif match := re.fullmatch(r"\.reg \.(\w+) %(\w+);", line):
                translator.lines.append(f"{ctype(match[1])} {match[2]}; Time t_{match[2]};")
            elif line.startswith((".", "st.param")) or "retval0" in line or "param0" in line:
                if "call" in line:
                    translator.lines.append("abort();")
            elif line.rstrip(";").strip():
                translator.instruction(line.rstrip(";").strip())
        translator.close()
        arguments = ", ".join(f"{t} {name}_param_{i}" for i, t in enumerate(types))
        text = (
            f"static void {name}({arguments}) {{\nTime now = nothing, started = nothing;\n"
            f"uint32_t* const entered = &ptx::counts[threadIdx.x * ptx::n_stretches];\n"
            + "\n".join([*declared, *translator.lines])
            + "\nptx::clocks[threadIdx.x] = now;\n}\n"
        )
        kernels.append(Kernel(name, types, text, translator.stretches, translator.n_accesses, translator.barriers))
    return kernels


def program(ptx: str, kernels: list[Kernel], header: str) -> str:
    """Return the program of C++ that launches kernels as the driver does, and counts."""
    text = [f'#include "{header}"\nusing ptx::later; using ptx::nothing;\n']
    for align, name, values in re.findall(r"\.global \.align (\d+) \.b8 (\w+)\[\d+\] = (\{.*?\});", ptx):
        text.append(f"alignas({align}) static const unsigned char {name}[] = {values};\n")
    for k in kernels:
        values = ", ".join(f"*({kind}*)arguments[{i}]" for i, kind in enumerate(k.parameters))
        text.append(k.text)
        weights = ", ".join(f"{s.issued:.1f}f" for s in k.stretches)
        text.append(
            f"static const float issued_{k.name}[] = {{{weights}}};\n"
            f'extern "C" int launch_{k.name}(unsigned n_blocks, unsigned n_threads, unsigned shared_bytes, '
            f"unsigned seed, void** arguments, Found* found) {{\n    return ptx::launch(n_blocks, n_threads, "
            f"shared_bytes, seed, {str(k.barriers).lower()}, {len(k.stretches)}, issued_{k.name}, "
            f"{max(k.n_accesses, 1)}, found, "
            f"[=] {{ {k.name}({values}); }});\n}}\n"
        )
    return "".join(text)
