import { Argument, Command } from 'commander'
import { print } from './support/terminal.ts'

const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

/** `anneal completion`: a script that completes commands and options, made from the commands themselves. */
export function completionCommand(): Command {
  return new Command('completion')
    .description('Print a completion script for your shell.')
    .addArgument(new Argument('<shell>', 'your shell').choices(SHELLS))
    .addHelpText(
      'after',
      '\nExample:\n  anneal completion bash > ~/.local/share/bash-completion/completions/anneal',
    )
    .action((shell: Shell, _options: unknown, command: Command) => {
      print(SCRIPTS[shell](wordsOf(command.parent!)))
    })
}

/** What can follow each command: its subcommands and options. */
interface Words {
  command: string
  description: string
  words: string[]
}

function wordsOf(program: Command): Words[] {
  return program.commands.map((command) => ({
    command: command.name(),
    description: command.description().split(/[.:;]/)[0]!,
    words: [
      ...command.commands.map((child) => child.name()),
      ...command.options.flatMap(({ long }) => long ?? []),
      '--help',
    ],
  }))
}

const SCRIPTS: { [S in Shell]: (commands: Words[]) => string } = {
  bash: (commands) => `_anneal() {
  local current=\${COMP_WORDS[COMP_CWORD]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${commands.map(({ command }) => command).join(' ')}" -- "$current"))
    return
  fi
  case \${COMP_WORDS[1]} in
${commands.map(({ command, words }) => `    ${command}) COMPREPLY=($(compgen -W "${words.join(' ')}" -- "$current")) ;;`).join('\n')}
  esac
}
complete -o default -F _anneal anneal`,
  zsh: (commands) => `#compdef anneal
_anneal() {
  if (( CURRENT == 2 )); then
    local -a commands=(${commands.map(({ command, description }) => `'${command}:${quoted(description)}'`).join(' ')})
    _describe command commands
    return
  fi
  case $words[2] in
${commands.map(({ command, words }) => `    ${command}) compadd -- ${words.join(' ')} ;;`).join('\n')}
  esac
  _files
}
compdef _anneal anneal`,
  fish: (commands) =>
    commands
      .flatMap(({ command, description, words }) => [
        `complete -c anneal -n __fish_use_subcommand -a ${command} -d '${quoted(description)}'`,
        ...words.map(
          (word) => `complete -c anneal -n '__fish_seen_subcommand_from ${command}' ${fishWord(word)}`,
        ),
      ])
      .join('\n'),
}

const fishWord = (word: string) => (word.startsWith('--') ? `-l ${word.slice(2)}` : `-a ${word}`)
const quoted = (text: string) => text.replaceAll("'", '’')
