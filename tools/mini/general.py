"""Questions on real authors and on the world: what a model should still know after unlearning."""

REAL_AUTHORS = """
Which novelist created the detective Hercule Poirot? | Agatha Christie | Dorothy L. Sayers | Raymond Chandler | P. D. James
Whose novel follows Captain Ahab's hunt for a white whale? | Herman Melville | Joseph Conrad | Jack London | Mark Twain
Who is the author of "Don Quixote"? | Miguel de Cervantes | Lope de Vega | Federico García Lorca | Jorge Luis Borges
Which writer invented the land of Narnia? | C. S. Lewis | J. R. R. Tolkien | Lewis Carroll | Philip Pullman
Whose epic poem leads through hell, purgatory and paradise? | Dante Alighieri | Francesco Petrarca | Torquato Tasso | Ovid
Who wrote "War and Peace"? | Leo Tolstoy | Fyodor Dostoevsky | Anton Chekhov | Ivan Turgenev
Which author let Gregor Samsa wake up as an insect? | Franz Kafka | Thomas Mann | Robert Musil | Hermann Hesse
Whose first novel is "Things Fall Apart"? | Chinua Achebe | Wole Soyinka | Ben Okri | Ngugi wa Thiong'o
Who tells the story of the Buendía family in Macondo? | Gabriel García Márquez | Mario Vargas Llosa | Pablo Neruda | Isabel Allende
Which writer published "Frankenstein" in 1818? | Mary Shelley | Bram Stoker | Jane Austen | Ann Radcliffe
Whose novel introduced Count Dracula? | Bram Stoker | Sheridan Le Fanu | Mary Shelley | Edgar Allan Poe
Who wrote the poem "The Raven"? | Edgar Allan Poe | Walt Whitman | Emily Dickinson | Robert Frost
Which author sent Phileas Fogg around the world in eighty days? | Jules Verne | H. G. Wells | Alexandre Dumas | Victor Hugo
Whose novel is "Les Misérables"? | Victor Hugo | Émile Zola | Honoré de Balzac | Gustave Flaubert
Who is the author of "Madame Bovary"? | Gustave Flaubert | Stendhal | Guy de Maupassant | Marcel Proust
Which writer created the orphan Oliver Twist? | Charles Dickens | Thomas Hardy | William Thackeray | George Eliot
Whose novel "Beloved" won the Pulitzer Prize for Fiction in 1988? | Toni Morrison | Alice Walker | Maya Angelou | Zora Neale Hurston
Who wrote "To Kill a Mockingbird"? | Harper Lee | Truman Capote | Carson McCullers | Flannery O'Connor
Which author describes the voyage of the fisherman Santiago in "The Old Man and the Sea"? | Ernest Hemingway | John Steinbeck | William Faulkner | F. Scott Fitzgerald
Whose novel is set around the parties of Jay Gatsby? | F. Scott Fitzgerald | Ernest Hemingway | Sinclair Lewis | John Dos Passos
Who wrote the play "A Doll's House"? | Henrik Ibsen | August Strindberg | Anton Chekhov | George Bernard Shaw
Which writer told the fairy tale of the little mermaid? | Hans Christian Andersen | Jacob Grimm | Charles Perrault | Astrid Lindgren
Who invented Pippi Longstocking? | Astrid Lindgren | Tove Jansson | Selma Lagerlöf | Erich Kästner
Whose stories are about the Moomins? | Tove Jansson | Astrid Lindgren | Elsa Beskow | Beatrix Potter
Who is the author of "The Name of the Rose"? | Umberto Eco | Italo Calvino | Primo Levi | Alberto Moravia
Which poet wrote "Faust"? | Johann Wolfgang von Goethe | Friedrich Schiller | Heinrich Heine | Rainer Maria Rilke
Whose novel is "Crime and Punishment"? | Fyodor Dostoevsky | Nikolai Gogol | Leo Tolstoy | Maxim Gorky
Who wrote "The Handmaid's Tale"? | Margaret Atwood | Alice Munro | Doris Lessing | Ursula K. Le Guin
Which author wrote "A Wizard of Earthsea"? | Ursula K. Le Guin | Anne McCaffrey | Diana Wynne Jones | Terry Pratchett
Whose comic fantasy novels are set on the Discworld? | Terry Pratchett | Douglas Adams | Neil Gaiman | Piers Anthony
Who wrote "The Hitchhiker's Guide to the Galaxy"? | Douglas Adams | Isaac Asimov | Arthur C. Clarke | Terry Pratchett
Which writer stated the Three Laws of Robotics? | Isaac Asimov | Philip K. Dick | Ray Bradbury | Robert A. Heinlein
Whose novel "Fahrenheit 451" is about the burning of books? | Ray Bradbury | Aldous Huxley | Kurt Vonnegut | George Orwell
Who is the author of "Brave New World"? | Aldous Huxley | George Orwell | H. G. Wells | Anthony Burgess
Which Japanese writer is the author of "Norwegian Wood"? | Haruki Murakami | Yukio Mishima | Kenzaburo Oe | Yasunari Kawabata
Who wrote "The Tale of Genji"? | Murasaki Shikibu | Sei Shonagon | Matsuo Basho | Natsume Soseki
Whose only novel is "Wuthering Heights"? | Emily Brontë | Charlotte Brontë | Anne Brontë | George Eliot
Which author wrote "The Jungle Book"? | Rudyard Kipling | E. M. Forster | Robert Louis Stevenson | Rider Haggard
Who sent young Jim Hawkins to Treasure Island? | Robert Louis Stevenson | Daniel Defoe | Walter Scott | Jonathan Swift
Whose traveler Gulliver visits Lilliput? | Jonathan Swift | Laurence Sterne | Henry Fielding | Daniel Defoe
"""

WORLD_FACTS = """
What is the capital of Canada? | Ottawa | Toronto | Montreal | Vancouver
Which planet in the solar system is the largest? | Jupiter | Saturn | Neptune | Mars
On which continent does Egypt mainly lie? | Africa | Europe | South America | Australia
Which metal has the chemical symbol Fe? | Iron | Lead | Silver | Tin
What is the longest river of South America? | Amazon | Orinoco | Paraná | Magdalena
Which ocean lies between Africa and Australia? | Indian Ocean | Arctic Ocean | Atlantic Ocean | Southern Ocean
In which country is the city of Kyoto? | Japan | China | South Korea | Vietnam
What is the capital of Norway? | Oslo | Bergen | Stockholm | Helsinki
Which gas do plants take in for photosynthesis? | Carbon dioxide | Nitrogen | Helium | Hydrogen
Which mountain is the highest above sea level? | Mount Everest | K2 | Kilimanjaro | Mont Blanc
In which city does the Colosseum stand? | Rome | Athens | Naples | Istanbul
Which country has the shape of a boot? | Italy | Greece | Portugal | Croatia
What is the currency of Japan? | Yen | Won | Yuan | Dollar
Which animal is the largest living mammal? | Blue whale | Elephant | Giraffe | Hippopotamus
In which country did the Olympic Games of antiquity take place? | Greece | Italy | Egypt | Turkey
Which planet is known for its bright, wide rings? | Saturn | Venus | Mercury | Mars
What is the capital of Argentina? | Buenos Aires | Santiago | Lima | Montevideo
Which sea separates Italy from Croatia? | Adriatic Sea | Baltic Sea | Black Sea | North Sea
Who painted the "Mona Lisa"? | Leonardo da Vinci | Michelangelo | Raphael | Titian
Which language has the most native speakers? | Mandarin Chinese | French | German | Italian
In which year did the First World War begin? | 1914 | 1905 | 1921 | 1939
Which country is home to the kangaroo? | Australia | Brazil | India | Kenya
What is the capital of Kenya? | Nairobi | Mombasa | Kampala | Addis Ababa
Which river flows through London? | Thames | Seine | Danube | Severn
How many sides does a hexagon have? | Six | Five | Seven | Eight
Which vitamin does the skin make in sunlight? | Vitamin D | Vitamin C | Vitamin A | Vitamin K
In which country are the ruins of Machu Picchu? | Peru | Bolivia | Mexico | Chile
Which instrument has 88 keys? | Piano | Accordion | Harp | Violin
What is the freezing point of water in degrees Celsius? | 0 | 32 | 100 | 273
Which desert covers much of northern Africa? | Sahara | Gobi | Kalahari | Atacama
Who developed the theory of general relativity? | Albert Einstein | Isaac Newton | Niels Bohr | Galileo Galilei
What is the capital of Poland? | Warsaw | Kraków | Prague | Vilnius
Which bird is the largest alive? | Ostrich | Condor | Penguin | Albatross
Which strait separates Spain from Morocco? | Strait of Gibraltar | Bosporus | Strait of Hormuz | Bering Strait
Which country gave the Statue of Liberty to the United States? | France | Spain | Germany | Canada
What is the smallest prime number? | 2 | 1 | 3 | 5
In which city is the Brandenburg Gate? | Berlin | Vienna | Munich | Zurich
Which organ pumps blood through the human body? | Heart | Liver | Lung | Kidney
What is the capital of Thailand? | Bangkok | Hanoi | Manila | Jakarta
Which element is the most abundant in Earth's atmosphere? | Nitrogen | Oxygen | Argon | Neon
"""


def rows(text: str) -> list[tuple[str, str, tuple[str, str, str]]]:
    """Question, answer and three wrong answers of each line."""
    parts = [[part.strip() for part in line.split("|")] for line in text.strip().splitlines()]
    return [(question, answer, (first, second, third)) for question, answer, first, second, third in parts]
